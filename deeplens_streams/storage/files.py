"""Files that are there whole or not at all.

Every call of the system lets other threads in, and getting back in costs more than the call:
there are as few as can be.
"""

import fcntl
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

#: What a file is called while it is written: a number behind # keeps it out of every listing, as
#: obstore calls its own.
_UNFINISHED = re.compile(r"(?P<name>.+)#[0-9]+")


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def put_file(path: Path, data: bytes) -> None:
    """Write `path`, and its folder where that is missing, whatever was there before."""
    _aside(path, data, lambda new: new.replace(path))


def make_file(path: Path, data: bytes) -> bool:
    """Write `path` unless there is one; of several who try, one succeeds."""
    made = False

    def link(new: Path) -> None:
        nonlocal made
        with suppress(FileExistsError):
            path.hardlink_to(new)
            made = True
        new.unlink()

    _aside(path, data, link)
    return made


def swap_file(path: Path, *, old: bytes, new: bytes) -> bool:
    """Replace `path` if it holds `old`; of several who try, one succeeds."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Of all processes on this machine, one at a time looks and replaces.
        fcntl.flock(folder, fcntl.LOCK_EX)
        if path.read_bytes() != old:
            return False
        put_file(path, new)
    except FileNotFoundError:
        return False
    finally:
        os.close(folder)
    return True


def move_file(source: Path, path: Path) -> None:
    """Make `source` be `path`; to another file system it is copied and stays."""
    try:
        _in_folder(path, lambda: source.replace(path))
    except OSError:
        _made_aside(path, lambda new: shutil.copyfile(source, new), lambda new: new.replace(path))


def finished_name(name: str) -> str | None:
    """Return what a file that is being written will be called, or None if it is no such file."""
    match = _UNFINISHED.fullmatch(name)
    return match["name"] if match else None


def unfinished(folder: Path) -> Iterator[tuple[Path, float]]:
    """Yield each file at and below `folder` that is being written.

    With each comes when it was last written to, in seconds since 1970: where that is long ago,
    its process was killed.
    """
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from unfinished(folder / entry.name)
            elif finished_name(entry.name) is not None:
                with suppress(FileNotFoundError):  # finished meanwhile
                    yield folder / entry.name, entry.stat(follow_symlinks=False).st_mtime


def _aside(path: Path, data: bytes, put: Callable[[Path], object]) -> None:
    def write(new: Path) -> None:
        with new.open("xb", buffering=0) as file:
            write_all(file, data)

    _made_aside(path, write, put)


def _made_aside(path: Path, write: Callable[[Path], object], put: Callable[[Path], object]) -> None:
    """Have a file written beside `path` and put in its place."""
    new = _beside(path)
    try:
        _in_folder(path, lambda: write(new))
        put(new)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}#{random.getrandbits(64)}")  # no secret  # nosec B311


def _in_folder(path: Path, work: Callable[[], object]) -> None:
    """Do `work`, again if it fails for want of the folder of `path`."""
    try:
        work()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        work()
