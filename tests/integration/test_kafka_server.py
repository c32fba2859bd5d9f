"""Kafka itself: it starts, keeps what it has, stops, and is never left behind."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deeplens_streams.broker.provisioning import DECLARED, ensure_topics
from deeplens_streams.broker.topology import TOPICS
from deeplens_streams.cli.broker import partition_counts
from deeplens_streams.config import load_settings
from deeplens_streams.embedded_kafka import KafkaDidNotStart, KafkaServer
from deeplens_streams.host.ports import is_free

pytestmark = pytest.mark.kafka

#: What Java, lists, patterns and shells each take for something else.
ODD = " Ré né, 日本 😀: #!=%20 $HOME ${date} \\u0041 'x' \"y\" "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a Kafka has run in, of an awkward name, and that was moved since."""
    path = tmp_path_factory.mktemp("kafka") / ODD
    server = KafkaServer(path)
    server.prepare()
    with server:
        asyncio.run(ensure_topics(load_settings(broker=f"kafka://{server.bootstrap}")))
    assert (path / "logs" / "kafka.log").exists()
    assert [each.name for each in path.parent.iterdir()] == [ODD], "it wrote nothing elsewhere"
    return path.rename(path.with_name(f"moved {ODD}"))


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def test_a_second_start_is_where_the_first_was(folder: Path) -> None:
    with KafkaServer(folder) as server:
        assert server.is_running()
        settings = load_settings(broker=f"kafka://{server.bootstrap}")
        found = asyncio.run(partition_counts(settings))
        (java,) = psutil.Process(server.pid).children()
        port = int(server.bootstrap.rpartition(":")[2])
    assert {topic.name(): topic.partitions for topic in TOPICS}.items() <= found.items()
    assert not java.is_running()
    assert is_free(port)


def test_another_on_the_remembered_port_is_evaded(folder: Path) -> None:
    with KafkaServer(folder) as server:
        first = server.bootstrap
    with (
        socket.create_server(("127.0.0.1", int(first.rpartition(":")[2]))),
        KafkaServer(folder) as server,
    ):
        assert server.bootstrap != first
        settings = load_settings(broker=f"kafka://{server.bootstrap}")
        assert len(asyncio.run(partition_counts(settings))) >= len(TOPICS)


def test_the_topics_command_creates_and_compares(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def topics(*options: str) -> tuple[int, dict[str, str]]:
        command = [sys.executable, "-m", "deeplens_streams.cli.main", "topics", "--json", *options]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        rows = json.loads(ended.stdout)["topics"]
        return ended.returncode, {row["name"]: row["state"] for row in rows}

    monkeypatch.setenv("DEEPLENS_NAMESPACE", "mine")
    names = {topic.name("mine") for topic in DECLARED}
    with KafkaServer(folder) as server:
        monkeypatch.setenv("DEEPLENS_BROKER", f"kafka://{server.bootstrap}")
        assert topics() == (1, dict.fromkeys(names, "missing"))
        assert topics("--create") == (0, dict.fromkeys(names, "ok"))
        assert topics() == (0, dict.fromkeys(names, "ok"))


def test_the_topics_command_starts_the_kafka_of_a_stopped_system(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kafka").symlink_to(folder)
    monkeypatch.setenv("DEEPLENS_DATA_DIR", str(tmp_path))
    command = [sys.executable, "-m", "deeplens_streams.cli.main", "topics", "--embedded", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert {row["state"] for row in answer["topics"]} == {"ok"}
    assert is_free(int(answer["broker"].rpartition(":")[2]))


def test_a_taken_port_is_one_sentence(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(KafkaDidNotStart, match=f"Port {port} is taken"):
            KafkaServer(folder, port=port).start()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(KafkaDidNotStart, match="cannot keep its data"):
        KafkaServer(tmp_path / "file" / "kafka").start()


def test_a_kafka_that_ends_says_why(folder: Path, tmp_path: Path) -> None:
    server = KafkaServer(tmp_path)
    server.prepare()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=abc\n")

    with pytest.raises(KafkaDidNotStart, match="Stored node id 7") as caught:
        server.start()

    assert "\n" not in caught.value.message
    assert not server.is_running()


def test_a_killed_parent_leaves_no_java(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; "
        "from deeplens_streams.embedded_kafka import KafkaServer; "
        "server = KafkaServer(Path(sys.argv[1])); server.start(); "
        "Path(sys.argv[2]).write_text(f'{server.pid} {server.bootstrap} '); time.sleep(600)"
    )
    note = tmp_path / "note"
    with subprocess.Popen([sys.executable, "-c", code, folder, note]) as parent:
        until(lambda: note.is_file() and note.read_text().endswith(" "))
        pid, bootstrap = note.read_text().split()
        guard = psutil.Process(int(pid))
        (java,) = guard.children()
        parent.send_signal(signal.SIGKILL)

    until(lambda: not java.is_running() and not guard.is_running())
    assert is_free(int(bootstrap.rpartition(":")[2]))
