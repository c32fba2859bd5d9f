"""Files that are there whole or not at all.

Every call of the system lets other threads in, and getting back in costs more than the call:
there are as few as can be.
"""

import random
import shutil
from collections.abc import Callable
from io import FileIO
from pathlib import Path


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def put_file(path: Path, data: bytes) -> None:
    """Write `path`, and its folder where that is missing, whatever was there before."""

    def write(new: Path) -> None:
        with new.open("xb", buffering=0) as file:
            write_all(file, data)

    _replace(path, write)


def move_file(source: Path, path: Path) -> None:
    """Make `source` be `path`; to another file system it is copied and stays."""
    try:
        _in_folder(path, lambda: source.replace(path))
    except OSError:
        _replace(path, lambda new: shutil.copyfile(source, new))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    # Called as obstore calls its own: a number behind # keeps it out of every listing.
    new = path.with_name(f"{path.name}#{random.getrandbits(64)}")
    try:
        _in_folder(path, lambda: write(new))
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _in_folder(path: Path, work: Callable[[], object]) -> None:
    """Do `work`, again if it fails for want of the folder of `path`."""
    try:
        work()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        work()
