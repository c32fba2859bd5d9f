"""``deeplens up``: one command from nothing to a ready system, and back to nothing."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from deeplens_streams.cli.demo import SAMPLES, altered_copy
from deeplens_streams.kafka.ports import free_port, is_free
from tests.support.signals import heeding_ctrl_c

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

UP = [sys.executable, "-m", "deeplens_streams.cli.main", "up"]


def until(condition: Callable[[], object], seconds: float = 120, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about in time: {what}"
        time.sleep(0.05)


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

    def start(self, *options: str, wrapper: tuple[str, ...] = ()) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DEEPLENS_")}
        # The network has nothing to do with what is tested here.
        environment["DEEPLENS_WEIGHTS"] = "untrained"
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


def test_ready_stopped_again_and_killed(up: Up) -> None:
    up.start("--no-demo")
    up.until_ready()
    names = {process.name() for process in up.seen}
    assert "java" in names
    assert httpx.get(f"{up.url}/health/ready").status_code == 200
    where = [line.split()[0] for line in up.words().splitlines()[-3:]]
    assert where == ["page", "upload", "data"]

    second = subprocess.run(
        [*UP, "--data-dir", str(up.data)], capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert second.stderr.startswith("deeplens: ")
    assert f"is in use by process {up.process and up.process.pid}" in second.stderr
    assert second.stderr.count("\n") == 1

    with (SAMPLES / "chelsea.jpg").open("rb") as file:
        answer = httpx.post(
            f"{up.url}/api/v1/images/upload", data={"tenantId": "acme"}, files={"file": file}
        ).json()
    image_id = answer["imageId"]
    until(
        lambda: httpx.get(up.url + answer["statusCheckUrl"]).json()["status"] == "completed",
        what="the picture is searchable",
    )

    assert up.end(signal.SIGINT) == 0
    assert up.all_gone()
    assert {each.name for each in up.data.parent.iterdir()} == {up.data.name, up.printed.name}

    up.data = up.data.rename(up.data.with_name("moved, né"))
    up.start("--no-demo")
    up.until_ready()
    query = altered_copy(SAMPLES / "chelsea.jpg")
    found = httpx.post(
        f"{up.url}/api/v1/images/search",
        data={"tenantId": "acme"},
        files={"queryImage": ("query.jpg", query)},
    ).json()
    assert [hit["imageId"] for hit in found["results"]] == [image_id]

    # At once, as a supervisor starts it: it waits until what was killed has stopped, also where
    # those were killed who would have seen to that.
    for victims in ({up.process}, up.seen):
        killed, dead = set(up.seen), up.process
        for process in victims:
            assert process is not None
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        up.start("--no-demo")
        up.until_ready()
        assert dead is not None
        dead.wait()
        assert not [process for process in killed if process.is_running()]
    assert httpx.get(f"{up.url}/api/v1/images/{image_id}/status").json()["status"] == "completed"
    assert up.end(signal.SIGTERM) == 0
    assert up.all_gone()


def test_the_first_start_shows_what_it_can(up: Up) -> None:
    up.start()
    up.until_ready()
    until(lambda: "coffee.jpg" in up.words().partition("most like")[2], what=up.words())
    assert "12 of 12 sample pictures completed" in up.words()

    java = next(process for process in up.seen if process.name() == "java")
    java.kill()
    assert up.process is not None
    assert up.process.wait(60) == 1
    assert "deeplens: Kafka ended: " in up.words()
    assert up.all_gone()


def test_a_worker_that_ends_takes_the_rest_along(up: Up) -> None:
    up.start("--no-demo")
    up.until_ready()
    worker = next(p for p in up.seen if "faust" in p.cmdline() and p.children())
    worker.kill()

    assert up.process is not None
    assert up.process.wait(60) == 1
    assert "deeplens: The worker ended: " in up.words()
    assert "worker.log" in up.words()
    until(up.all_gone)


def test_with_its_parent(up: Up) -> None:
    """As ``make run`` starts it: when make is killed, the system goes with it."""
    # A shell that waits is the parent; ``&& true`` keeps it from becoming the command.
    up.start("--no-demo", "--with-parent", wrapper=("/bin/sh", "-c", '"$@" && true', "sh"))
    up.until_ready()
    up.end(signal.SIGKILL)

    until(up.all_gone, what="nothing outlives the parent")


def test_stopped_while_it_starts(up: Up) -> None:
    up.start("--no-demo")
    until((up.data / "kafka" / "server.properties").exists, what=up.words())
    up.look()

    assert up.end(signal.SIGINT) == 0
    assert "Traceback" not in up.words()
    until(up.all_gone)


def refused(*options: str, **environment: str) -> str:
    """Return the one sentence of a start that must be refused."""
    ended = subprocess.run(
        [*UP, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert ended.returncode == 1, ended
    assert ended.stderr.splitlines()[-1].startswith("deeplens: "), ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr.splitlines()[-1]


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--data-dir", str(tmp_path / "d"), "--port", str(port))

    assert f"Port {port} on 127.0.0.1 cannot be used" in said
    assert "--port" in said


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert "cannot be written" in refused("--data-dir", str(tmp_path / "file" / "data"))


def test_no_jars_and_no_network_are_one_sentence(tmp_path: Path) -> None:
    port = free_port()
    said = refused(
        *("--data-dir", str(tmp_path / "d"), "--port", str(port)),
        M2_REPO=str(tmp_path / "jars"),
        DEEPLENS_WEIGHTS="untrained",
        # A proxy that is not there is a network that is not there.
        HTTPS_PROXY="http://127.0.0.1:9",
        https_proxy="http://127.0.0.1:9",
        NO_PROXY="",
        no_proxy="",
    )

    assert "connect this machine to the network" in said
    assert not list((tmp_path / "jars").rglob("*")), "nothing is left of the attempt"


def test_a_broker_of_ones_own_is_not_for_this_command(tmp_path: Path) -> None:
    said = refused("--data-dir", str(tmp_path), DEEPLENS_BROKER="kafka://127.0.0.1:9")

    assert "DEEPLENS_BROKER is set" in said
