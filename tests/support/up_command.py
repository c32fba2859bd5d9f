"""A running `deeplens up`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deeplens_streams.host.ports import free_port, is_free
from tests.support.signals import heeding_ctrl_c

UP = [sys.executable, "-m", "deeplens_streams.cli.main", "up"]


def until(
    condition: Callable[[], object], seconds: float = 120, what: str = "", *, poll_s: float = 0.05
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about in time: {what}"
        time.sleep(poll_s)


class Up:
    """One data folder, and the command that runs on it."""

    def __init__(self, folder: Path) -> None:
        # Another than pytest's own: Kafka, the vectors and the storage read it each in their way.
        self.data = folder / "Ré né, x: #%20"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.printed = folder / "printed.txt"
        self.process: subprocess.Popen[bytes] | None = None
        #: Every process that was ever seen below it.
        self.seen: set[psutil.Process] = set()

    def start(self, *options: str, wrapper: tuple[str, ...] = (), **variables: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DEEPLENS_")}
        # The network has nothing to do with most of what is tested here.
        environment |= variables or {"DEEPLENS_MODEL": "resnet50-untrained"}
        command = [*UP, "--port", str(self.port), "--data-dir", str(self.data), *options]
        with self.printed.open("wb") as out, heeding_ctrl_c():
            self.process = subprocess.Popen(
                [*wrapper, *command], stdout=out, stderr=out, env=environment
            )

    def until_ready(self) -> None:
        until(self._is_ready, what=self.words())
        self.look()

    def look(self) -> None:
        """Remember the processes that there are now."""
        assert self.process is not None
        top = psutil.Process(self.process.pid)
        self.seen |= {top, *top.children(recursive=True)}

    def all_gone(self) -> bool:
        alive = [p for p in self.seen if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        return not alive and is_free(self.port)

    def words(self) -> str:
        return self.printed.read_text() if self.printed.exists() else ""

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.words()
        return "\ndata    " in self.words()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    system = Up(tmp_path)
    yield system
    if system.process is not None and system.process.poll() is None:
        system.process.kill()
        system.process.wait()
    for process in system.seen:
        if process.is_running():
            process.kill()
