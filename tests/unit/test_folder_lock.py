"""A start right behind a SIGKILL waits for what the dead one left; a living owner is refused."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deeplens_streams.config import load_settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.host.folder_lock import FolderInUse, FolderLock
from deeplens_streams.host.ports import require_port

#: Takes the lock, hands it to a child of its own, says who both are, and waits to be killed.
OWNER = """
import subprocess, sys, time
from pathlib import Path
from deeplens_streams.host.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
child = subprocess.Popen(
    ["sleep", "600"], pass_fds=[lock.fileno()],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
print(child.pid, flush=True)
time.sleep(600)
"""


class Owner:
    """A process that has a folder, and its child, which has it as well."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", OWNER, str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.child = int(self.process.stdout.readline())

    def kill(self) -> None:
        """Have it dead, and nobody who asked for its end."""
        os.kill(self.process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)

    def close(self) -> None:
        for pid in (self.process.pid, self.child):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    owner = Owner(tmp_path)
    yield owner
    owner.close()


def test_a_living_owner_is_refused_at_once(tmp_path: Path, owner: Owner) -> None:
    said: list[str] = []
    with pytest.raises(FolderInUse, match=f"process {owner.process.pid}"):
        FolderLock(tmp_path, say=said.append).acquire()
    assert said == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells")
def test_one_that_was_killed_is_waited_for_before_anybody_has_taken_note(
    tmp_path: Path, owner: Owner
) -> None:
    """As a supervisor does that starts the next one in the same moment."""
    owner.kill()
    said: list[str] = []

    def waited_for(sentence: str) -> None:
        said.append(sentence)
        threading.Timer(0.3, os.kill, (owner.child, signal.SIGKILL)).start()

    lock = FolderLock(tmp_path, say=waited_for)
    with lock:
        assert lock.was_left_behind
    (sentence,) = said
    assert f"process {owner.process.pid}, which was killed; waiting up to 30 s" in sentence


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells")
def test_a_younger_process_of_the_same_number_is_not_the_owner(
    tmp_path: Path, owner: Owner
) -> None:
    owner.kill()
    lock = tmp_path / ".lock"
    lock.write_text(f"{os.getpid()}\n")
    last_year = time.time() - 3600 * 24 * 365
    os.utime(lock, (last_year, last_year))
    said: list[str] = []
    with pytest.raises(FolderInUse):
        FolderLock(tmp_path, say=said.append).acquire(patience_s=0.2)
    assert len(said) == 1


def test_one_that_was_released_is_not_left_behind(tmp_path: Path) -> None:
    for _ in range(2):
        with FolderLock(tmp_path) as lock:
            assert not lock.was_left_behind
    lock = FolderLock(tmp_path)
    lock.path.write_text("1\n")
    with lock:
        assert lock.was_left_behind


def test_the_port_of_one_that_was_killed_is_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        settings = load_settings(data_dir=tmp_path, weights="untrained", web_port=port)
        with pytest.raises(ConfigurationError, match=f"Port {port}"):
            require_port(settings, "--port")
        threading.Timer(0.3, server.close).start()
        require_port(settings, "--port", patience_s=30)
