"""One user at a time for a folder."""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import structlog

from deeplens_streams.errors import ConfigurationError

log = structlog.get_logger()

#: Seconds that the processes of a dead owner have to end: longer than they are given to stop.
PATIENCE_S = 30.0
_POLL_S = 0.1
#: What the clock of processes and that of files may differ by, in seconds.
_CLOCKS_S = 2.0
#: Bits and places of /proc/PID/stat, counted behind the name: the state, flags, the start.
_STATE, _FLAGS, _START, _PF_EXITING = 0, 6, 19, 0x4
_ENDED = frozenset("ZXx")


class FolderInUse(ConfigurationError):
    """Another process uses this folder."""

    code = "FOLDER_IN_USE"


def _log_wait(sentence: str) -> None:
    log.warning(sentence)


class FolderLock:
    """A lock that the kernel releases when its last holder ends, in whatever way.

    Children that are handed its descriptor hold it, too. So after their parent was killed
    the folder stays locked until they are gone, and `acquire` waits for that.

    Parameters
    ----------
    say : told, once, that somebody is waited for.

    Attributes
    ----------
    was_left_behind : whether the last owner ended without releasing it, as one does that is killed.
    """

    was_left_behind = False

    def __init__(
        self,
        folder: Path,
        advice: str = "stop it, or choose another folder with --data-dir",
        *,
        say: Callable[[str], None] = _log_wait,
    ) -> None:
        self.path = folder / ".lock"
        self._advice, self._say = advice, say
        self._fd = -1

    def acquire(self, patience_s: float = PATIENCE_S) -> None:
        """Take the lock; one whose owner is dead or dying is waited for, `patience_s` seconds.

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
        has_said = False
        try:
            while not _try_lock(fd):
                owner = _owner(fd)
                if owner is None or _lives_on(owner, fd) or time.monotonic() > deadline:
                    who = f"process {owner}" if owner else "another process"
                    raise FolderInUse(f"{self.path.parent} is in use by {who}; {self._advice}.")
                if not has_said:
                    has_said = True
                    self._say(
                        f"{self.path.parent} was in use by process {owner}, which was killed; "
                        f"waiting up to {patience_s:g} s for what it started to end"
                    )
                time.sleep(_POLL_S)
            self.was_left_behind = _owner(fd) is not None
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
            with contextlib.suppress(OSError):  # a full disk, at the worst
                os.ftruncate(self._fd, 0)
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


def _lives_on(pid: int, fd: int) -> bool:
    """Tell whether the process that wrote its ID into the lock is neither dead nor dying."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        return _works(pid) and _started_at(pid) <= os.fstat(fd).st_mtime + _CLOCKS_S
    except (OSError, ValueError, IndexError):  # not Linux, or gone since
        return not Path("/proc/self/stat").exists() or Path(f"/proc/{pid}").exists()


def _works(pid: int) -> bool:
    """Tell whether a process that there is has not ended, and was not killed.

    One that is killed still has its files while the kernel takes it apart, and one that nobody
    asked for its end keeps its ID.
    """
    fields = _fields(pid)
    if fields[_STATE] in _ENDED or int(fields[_FLAGS]) & _PF_EXITING:
        return False
    killed = 1 << (signal.SIGKILL - 1)
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("SigPnd", "ShdPnd") and int(value, 16) & killed:
            return False
    return True


def _started_at(pid: int) -> float:
    """Return when a process started: another one may have the ID of a dead one by now."""
    boot = next(
        int(line.split()[1])
        for line in Path("/proc/stat").read_text().splitlines()
        if line.startswith("btime ")
    )
    return boot + int(_fields(pid)[_START]) / os.sysconf("SC_CLK_TCK")


def _fields(pid: int) -> list[str]:
    # The name, in parentheses, may hold anything.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
