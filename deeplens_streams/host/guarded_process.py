"""A child process that never outlives this one, however this one ends."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_GUARD = Path(__file__).with_name("guard.py")
#: What the guard itself may take beyond the command's own grace.
_SLACK_S = 2.0


class GuardedProcess:
    """One command under its guard, in a session of its own.

    Parameters
    ----------
    log : receives the command's output, appended.
    folder : where the command runs. Default: where this process does.
    grace_s : seconds between SIGTERM and SIGKILL.
    hold : descriptors that stay open until the command has ended, such as a folder's lock; the
        guard and the command keep them, and what the command starts does not.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
        grace_s: float = 8.0,
        hold: Sequence[int] = (),
    ) -> None:
        self.log = log
        self._grace_s = grace_s
        log.parent.mkdir(parents=True, exist_ok=True)
        held = ",".join(map(str, hold))
        read, self._pipe = os.pipe()
        try:
            with log.open("ab") as output:
                self._guard = subprocess.Popen(  # noqa: S603 - our own script
                    [sys.executable, "-I", "-S", _GUARD, str(grace_s), held, *command],
                    stdin=read,
                    stdout=output,
                    stderr=output,
                    cwd=folder,
                    env=dict(env) if env is not None else None,
                    pass_fds=hold,
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(read)

    @property
    def pid(self) -> int:
        """The guard's process ID; the command is its only child."""
        return self._guard.pid

    def poll(self) -> int | None:
        """Return the command's exit status, 128 + N if signal N ended it, or None."""
        return self._guard.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command to end by itself; raises `subprocess.TimeoutExpired`."""
        return self._guard.wait(timeout)

    def stop(self) -> int:
        """End the command: SIGTERM, then SIGKILL when its grace is over."""
        self._order(b"t")
        try:
            status = self._guard.wait(self._grace_s + _SLACK_S)
        except subprocess.TimeoutExpired:  # something has stopped the guard itself
            self._guard.kill()
            status = self._guard.wait()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        return status

    def kill(self) -> None:
        """Have the command killed at once, also while another thread waits in `stop`."""
        self._order(b"k")

    def _order(self, order: bytes) -> None:
        if self._pipe >= 0:
            with contextlib.suppress(BrokenPipeError):  # the guard has ended
                os.write(self._pipe, order)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
