"""Copies of an engine's files, which are mostly holes."""

import os
from pathlib import Path

_BLOCK = 1024 * 1024
_ZEROS = bytes(_BLOCK)


def copy_file(source: str, target: str) -> None:
    """Copy a file and leave its holes holes: a collection's files are mostly that."""
    with Path(source).open("rb") as reading, Path(target).open("wb") as writing:
        while block := reading.read(_BLOCK):
            if block == _ZEROS[: len(block)]:
                writing.seek(len(block), os.SEEK_CUR)
            else:
                writing.write(block)
        writing.truncate()


def disk_bytes(folder: Path) -> int:
    """Return how many bytes of disk a folder takes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))
