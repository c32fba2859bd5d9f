"""Runs one command and ends it when whoever started the guard is gone.

A script of its own, started as ``python -I -S guard.py GRACE HOLD COMMAND…`` in a session of its
own, so that the terminal's Ctrl-C does not reach the command. It imports the standard
library only, because it must be up in milliseconds.

Standard input is a pipe that the starter holds open. ``t`` on it, or its end, is the order
to stop: SIGTERM, and SIGKILL after GRACE seconds. ``k`` is the order to kill at once. The
kernel closes the pipe when the starter dies in whatever way. If the guard itself is killed,
Linux kills the command (PR_SET_PDEATHSIG). HOLD are descriptors, as ``3,4``, that the command
has open as well: what they lock is free when both have ended, also where both are killed at once.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_STDIN = 0


def _tie_to_parent() -> Callable[[], None] | None:
    """Return what the child does first: ask Linux to kill it when the guard dies."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes  # noqa: PLC0415 - only Linux has a use for it

    guard = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # the guard died before the call above
            os.kill(os.getpid(), signal.SIGKILL)

    return tie


def _kill_group(pid: int) -> None:
    """Kill the command and whatever it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _watch(child: "subprocess.Popen[bytes]", wakeup: int, grace: float) -> int:
    """Return the child's exit status, having stopped it if the pipe says so."""
    sources = [_STDIN, wakeup]
    deadline: float | None = None
    while child.poll() is None:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(sources, [], [], wait)
        if wakeup in ready:
            stop = signal.SIGTERM in os.read(wakeup, 64)
        elif _STDIN in ready:
            order = os.read(_STDIN, 1)
            if order == b"k":
                _kill_group(child.pid)
            elif not order:
                sources.remove(_STDIN)
            stop = order != b"k"
        else:
            _kill_group(child.pid)
            deadline = None
            continue
        if stop and deadline is None and child.poll() is None:
            child.terminate()
            deadline = time.monotonic() + grace
    return child.returncode


def main(arguments: list[str]) -> int:
    grace, command = float(arguments[0]), arguments[2:]
    hold = [int(each) for each in arguments[1].split(",") if each]
    wakeup, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # what matters is the byte in the pipe
    try:
        child = subprocess.Popen(  # noqa: S603 - the command is our own
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=hold,
            process_group=0,
            preexec_fn=_tie_to_parent(),  # noqa: PLW1509 - there are no threads
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - the log
        return 127
    status = _watch(child, wakeup, grace)
    _kill_group(child.pid)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
