"""One user at a time for a folder."""

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Self

from deeplens_streams.errors import ConfigurationError

_POLL_S = 0.1


class FolderInUse(ConfigurationError):
    """Another process uses this folder."""

    code = "FOLDER_IN_USE"


class FolderLock:
    """A lock that the kernel releases when its last holder ends, in whatever way.

    Children that are handed its descriptor hold it, too. So after their parent was killed
    the folder stays locked until they are gone, and `acquire` waits for that.
    """

    def __init__(
        self, folder: Path, advice: str = "stop it, or choose another folder with --data-dir"
    ) -> None:
        self.path = folder / ".lock"
        self._advice = advice
        self._fd = -1

    def acquire(self, patience_s: float = 15.0) -> None:
        """Take the lock; one whose owner is dead is waited for, `patience_s` seconds.

        Raises
        ------
        FolderInUse
            A living process has it; the message says which.
        ConfigurationError
            The folder cannot be made or written.
        """
        if self._fd >= 0:
            return
        fd = self._open()
        deadline = time.monotonic() + patience_s
        try:
            while not _try_lock(fd):
                owner = _owner(fd)
                if owner is None or _is_alive(owner) or time.monotonic() > deadline:
                    who = f"process {owner}" if owner else "another process"
                    raise FolderInUse(f"{self.path.parent} is in use by {who}; {self._advice}.")
                time.sleep(_POLL_S)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _open(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigurationError(
                f"{self.path.parent} cannot be written ({error.strerror}); {self._advice}."
            ) from error

    def fileno(self) -> int:
        """Return the descriptor, for children that have to be gone before it is free."""
        return self._fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(fd: int) -> int | None:
    with contextlib.suppress(ValueError):
        return int(os.pread(fd, 32, 0))
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
