"""Pictures that the makers of decoders test them with: those in the source releases of Pillow.

They are fetched by pip once, checked, and kept beside the programs that CI installs. Some were made
to crash decoders, so none is copied into this repository, and none is opened in this process.
"""

import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Archive:
    """A source release on PyPI.

    Attributes
    ----------
    sha256 : of the archive, in hexadecimal.
    folder : where in it the pictures are.
    """

    package: str
    version: str
    sha256: str
    folder: str

    @property
    def name(self) -> str:
        return f"{self.package}-{self.version}"


ARCHIVES = (
    Archive(
        "pillow",
        "13.0.0",
        "cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510",
        "Tests/images",
    ),
    Archive(
        "pillow_heif",
        "1.8.1",
        "521ebffb8a181d56c3904e5a61f20903edee0d9d3275967b8fb345f866215c06",
        "tests/images",
    ),
)


def pictures(archive: Archive, kept: Path) -> Path:
    """Return the folder of an archive's pictures, fetched into `kept` if it is not there yet.

    Raises
    ------
    OSError
        It cannot be had; why is its text.
    """
    folder = kept / archive.name
    if folder.exists():
        return folder
    kept.mkdir(parents=True, exist_ok=True)
    # Whole or not at all, whoever else fetches it at the same time.
    with tempfile.TemporaryDirectory(dir=kept) as made:
        _unpack(archive, _fetched(archive, Path(made)), Path(made) / "pictures")
        try:
            (Path(made) / "pictures").rename(folder)
        except OSError:
            if not folder.exists():
                raise
    return folder


def _fetched(archive: Archive, folder: Path) -> Path:
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    once = ["--retries=1", "--timeout=30", "--require-hashes", f"--requirement={wanted}"]
    source = ["--no-deps", f"--no-binary={archive.package}", f"--dest={folder}"]
    ended = subprocess.run(
        [*command, *once, *source], check=False, capture_output=True, text=True, cwd=folder
    )
    found = list(folder.glob("*.tar.gz"))
    if ended.returncode or len(found) != 1:
        told = ended.stderr.strip().splitlines() or ["pip said nothing"]
        raise OSError(f"{archive.name} cannot be fetched: {told[-1]}")
    return found[0]


def _unpack(archive: Archive, packed: Path, folder: Path) -> None:
    begin = f"{archive.name}/{archive.folder}/"
    with tarfile.open(packed) as files:
        for each in files:
            if each.isfile() and each.name.startswith(begin):
                each.name = each.name.removeprefix(begin)
                files.extract(each, folder, filter="data")
