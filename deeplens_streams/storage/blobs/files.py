"""Files that are there whole or not at all.

Every call of the system lets other threads in, and getting back in costs more than the call:
there are as few as can be.
"""

import errno
import fcntl
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

#: What a file is called while it is written: a number behind # keeps it out of every listing, as
#: obstore calls its own.
_UNFINISHED = re.compile(r"(?P<name>.+)#[0-9]+")


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that is written whole beside its place, and not there yet.

    Attributes
    ----------
    source : the file that was moved here, if it was; `drop` moves it back.
    """

    path: Path
    beside: Path
    source: Path | None = None

    def put(self) -> None:
        """Be in its place, whatever was there before."""
        self.beside.replace(self.path)

    def make(self) -> bool:
        """Be in its place unless something is there; of several who try, one succeeds."""
        made = False
        with suppress(FileExistsError):
            self.path.hardlink_to(self.beside)
            made = True
        self.beside.unlink()
        return made

    def swap(self, old: bytes) -> bool:
        """Replace what holds `old`; of several who try, one succeeds."""
        try:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                # Of all processes on this machine, one at a time looks and replaces.
                fcntl.flock(folder, fcntl.LOCK_EX)
                if self.path.read_bytes() != old:
                    return False
                self.put()
            finally:
                os.close(folder)
        except FileNotFoundError:
            return False
        return True

    def drop(self) -> None:
        """Be gone, if it is not in its place."""
        with suppress(FileNotFoundError):
            if self.source is None:
                self.beside.unlink()
            else:
                self.beside.replace(self.source)


def new_file(path: Path, source: bytes | Path) -> NewFile:
    """Write a file beside `path`, in its folder, which is made where it is missing.

    Parameters
    ----------
    source : its bytes, or a file that is moved; from another file system that is copied and stays.
    """
    beside = path.with_name(f"{path.name}#{random.getrandbits(64)}")  # no secret  # nosec B311
    try:
        if isinstance(source, bytes):
            _in_folder(path, lambda: _write(beside, source))
            return NewFile(path, beside)
        try:
            _in_folder(path, lambda: source.replace(beside))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _in_folder(path, lambda: shutil.copyfile(source, beside))
            return NewFile(path, beside)
        return NewFile(path, beside, source)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def put_file(path: Path, data: bytes) -> None:
    """Write `path`, and its folder where that is missing, whatever was there before."""
    new = new_file(path, data)
    try:
        new.put()
    except BaseException:
        new.drop()
        raise


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


def _write(path: Path, data: bytes) -> None:
    with path.open("xb", buffering=0) as file:
        write_all(file, data)


def _in_folder(path: Path, work: Callable[[], object]) -> None:
    """Do `work`, again if it fails for want of the folder of `path`."""
    try:
        work()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        work()
