"""Files and folders to the disk: one by one, or all of a file system by one call."""

import ctypes
import errno
import fcntl
import os
import platform
import re
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

#: macOS's fsync leaves it to the disk when it writes; this does not.
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
#: What file systems say that sync no folder by itself.
_NO_FOLDERS = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EROFS}
#: Older kernels say nothing of what could not be written.
_SYNCFS_TELLS = (5, 8)


def sync_path(path: Path) -> None:
    """Have a file's bytes, or a folder's entries, be on the disk when this returns."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        if path.is_dir():  # above the folder of images: nothing of ours was made in there
            return
        raise
    try:
        if _FULL_SYNC is None:
            os.fsync(fd)
        else:
            fcntl.fcntl(fd, _FULL_SYNC)
    except OSError as error:
        if error.errno not in _NO_FOLDERS or not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise
    finally:
        os.close(fd)


def sync_file_systems(paths: Collection[Path]) -> bool:
    """Have all that was written to the file systems of `paths` be on the disk.

    Returns
    -------
    False where the system has no such call, or it did not succeed: then nothing is certain.
    """
    if _syncfs is None:
        return False
    devices: dict[int, Path] = {}
    for path in paths:
        with suppress(OSError):  # it was removed meanwhile, or is told of one by one
            devices.setdefault(path.stat().st_dev, path)
    try:
        for path in devices.values():
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _syncfs(fd) != 0:
                    return False
            finally:
                os.close(fd)
    except OSError:
        return False
    return True


def _find_syncfs() -> Callable[[int], int] | None:
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if platform.system() != "Linux" or release is None:
        return None
    if (int(release[1]), int(release[2])) < _SYNCFS_TELLS:
        return None
    # Calls of this kind let other threads work.
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "syncfs", None)
    return found


_syncfs = _find_syncfs()
