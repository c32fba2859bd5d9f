"""What there was before a disaster."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.disasters.damage import files_below


@dataclass
class Past:
    """What there was before the disaster.

    Attributes
    ----------
    now, older : data folders, the second from before the last images.
    backup : made by ``deeplens backup`` at the end.
    images : by ID, the tenant and the bytes, of images that can be found.
    failed : by ID, the tenant, of images that have a dead letter.
    deleted : by ID, the tenant.
    accepted : as the audit counts them.
    """

    now: Path
    older: Path
    backup: Path
    keys: dict[str, str] = field(default_factory=dict)
    images: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    deleted: dict[str, str] = field(default_factory=dict)
    accepted: int = 0

    def tenant_of(self, image_id: str) -> str:
        return self.images[image_id][0] if image_id in self.images else self.failed[image_id]


def originals(data: Path) -> Counter[str]:
    """Return the digests of all originals' bytes, those in the trash included."""
    images = data / "images"
    folders = [*images.glob("*/original"), images / ".trash"]
    return Counter(
        hashlib.sha256(file.read_bytes()).hexdigest()
        for folder in folders
        for file in files_below(folder)
    )
