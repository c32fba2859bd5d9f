"""Nothing that is guarded outlives who started it, however that ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deeplens_streams.host.guarded_process import GuardedProcess

#: Says that it runs, and ends on SIGTERM unless told to ignore it.
PATIENT = "import time, sys; print('up', flush=True); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + PATIENT

#: Starts a guarded process and then waits to be killed; prints the guard's process ID.
STARTER = """
import sys, time
from pathlib import Path
from deeplens_streams.host.guarded_process import GuardedProcess
guarded = GuardedProcess([sys.executable, "-c", sys.argv[2]], log=Path(sys.argv[1]), grace_s=1)
print(guarded.pid, flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def is_up(log: Path) -> bool:
    return log.is_file() and "up" in log.read_text()


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it went between the two questions
        return True


def start(tmp_path: Path, code: str, grace_s: float = 5.0) -> tuple[GuardedProcess, psutil.Process]:
    log = tmp_path / "child.log"
    guarded = GuardedProcess([sys.executable, "-c", code], log=log, grace_s=grace_s)
    until(lambda: is_up(log))
    (child,) = psutil.Process(guarded.pid).children()
    return guarded, child


def test_ends_with_the_commands_own_status(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('hello'); raise SystemExit(7)"]
    guarded = GuardedProcess(command, log=tmp_path / "log")

    assert guarded.wait(10) == 7
    assert guarded.stop() == 7
    assert (tmp_path / "log").read_text() == "hello\n"


def test_a_command_that_is_not_there_is_a_line_in_the_log(tmp_path: Path) -> None:
    guarded = GuardedProcess([tmp_path / "nothing"], log=tmp_path / "log")

    assert guarded.wait(10) == 127
    guarded.stop()
    assert "No such file" in (tmp_path / "log").read_text()


def test_stop_asks_politely(tmp_path: Path) -> None:
    guarded, child = start(tmp_path, PATIENT)

    assert guarded.stop() == 128 + signal.SIGTERM
    assert gone(child)


def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    guarded, child = start(tmp_path, DEAF, grace_s=0.1)

    assert guarded.stop() == 128 + signal.SIGKILL
    assert gone(child)


def test_kill_does_not_wait(tmp_path: Path) -> None:
    guarded, child = start(tmp_path, DEAF, grace_s=600)
    guarded.kill()

    assert guarded.wait(10) == 128 + signal.SIGKILL
    assert gone(child)
    guarded.stop()


def test_grandchildren_go_with_the_command(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); " + PATIENT
    )
    guarded, child = start(tmp_path, code)
    (grandchild,) = child.children()
    guarded.stop()

    until(lambda: gone(grandchild))


def test_the_terminals_signals_do_not_reach_the_command(tmp_path: Path) -> None:
    guarded, child = start(tmp_path, PATIENT)
    try:
        assert os.getsid(child.pid) != os.getsid(0)
        assert os.getpgid(child.pid) != os.getpgid(0)
    finally:
        guarded.stop()


@pytest.mark.parametrize("code", [PATIENT, DEAF], ids=["patient", "deaf"])
def test_a_killed_starter_leaves_nothing(tmp_path: Path, code: str) -> None:
    log = tmp_path / "child.log"
    command = [sys.executable, "-c", STARTER, str(log), code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        guard = psutil.Process(int(starter.stdout.readline()))
        until(lambda: is_up(log))
        (child,) = guard.children()
        starter.kill()

    until(lambda: gone(child) and gone(guard))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ties the two")
def test_a_killed_guard_takes_the_command_with_it(tmp_path: Path) -> None:
    guarded, child = start(tmp_path, DEAF)
    os.kill(guarded.pid, signal.SIGKILL)

    until(lambda: gone(child))
    guarded.stop()


def test_what_the_guard_holds_is_free_only_after_the_command(tmp_path: Path) -> None:
    read, write = os.pipe()
    log = tmp_path / "log"
    guarded = GuardedProcess([sys.executable, "-c", PATIENT], log=log, hold=[write])
    os.close(write)
    until(lambda: is_up(log))
    (child,) = psutil.Process(guarded.pid).children()
    guarded.stop()

    assert os.read(read, 1) == b"", "the pipe's end comes when its last holder is gone"
    assert gone(child)
    os.close(read)
