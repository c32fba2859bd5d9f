"""What was uploaded before, so that an interrupted run goes on where it was."""

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path


def cache_folder() -> Path:
    """Return the user's cache folder for this program."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "deeplens"


class UploadMemory:
    """The answered uploads of one tenant at one URL: a file that is only appended to.

    A file counts as the same while its path, size and time of change are.
    """

    def __init__(self, url: str, tenant: str, *, folder: Path | None = None) -> None:
        name = hashlib.sha256(f"{url}\0{tenant}".encode()).hexdigest()[:24]
        self._path = (folder or cache_folder()) / "uploads" / f"{name}.jsonl"
        self._lock = threading.Lock()
        self._images: dict[str, str] = {}
        with contextlib.suppress(OSError):
            for line in self._path.read_text("utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # cut short by a kill
                    entry = json.loads(line)
                    self._images[entry["file"]] = entry["imageId"]

    def image_of(self, path: Path) -> str | None:
        """Return the image that this very file became, if it was uploaded."""
        return self._images.get(_fingerprint(path))

    def remember(self, path: Path, image_id: str) -> None:
        """Keep an answered upload. A cache that cannot be written is no reason to fail."""
        fingerprint = _fingerprint(path)
        line = json.dumps({"file": fingerprint, "imageId": image_id}) + "\n"
        with self._lock, contextlib.suppress(OSError):
            self._images[fingerprint] = image_id
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)


def _fingerprint(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}:{path.resolve()}"
