"""``deeplens up``: one command from nothing to a ready system, and back to nothing."""

import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deeplens_streams.cli.demo import SAMPLES, altered_copy
from deeplens_streams.host.ports import free_port
from tests.support.up_command import UP, Up, until, up

__all__ = ["up"]  # fixtures

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


#: A proxy that is not there is a network that is not there.
NO_NETWORK: dict[str, Any] = {
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}


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

    looked = subprocess.run(
        [*UP[:-1], "doctor", "--json"],
        env=os.environ | {"DEEPLENS_DATA_DIR": str(up.data), "DEEPLENS_WEB_PORT": str(up.port)},
        capture_output=True,
        text=True,
        check=False,
    )
    told = {each["check"]: each for each in json.loads(looked.stdout)}
    assert f"deeplens up in {up.data}" in told["broker"]["detail"]
    assert (told["topics"]["state"], told["web"]["state"]) == ("ok", "ok")

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


def test_the_first_start_shows_what_it_can(up: Up, tmp_path: Path) -> None:
    """As on a machine that reaches package registries alone: ResNet50's weights cannot be had."""
    up.start(**NO_NETWORK, TORCH_HOME=str(tmp_path / "torch"))
    up.until_ready()
    until(lambda: "coffee.jpg" in up.words().partition("most like")[2], what=up.words())
    words = " ".join(up.words().split())
    assert "12 of 12 sample pictures completed" in words
    assert "model efficientnet-lite0, since resnet50 cannot be had: " in words
    assert "untrained" not in words
    assert (up.data / "model.json").read_text() == '{"model": "efficientnet-lite0"}\n'
    health = httpx.get(f"{up.url}/health/ready").json()
    assert (health["model"]["name"], health["warning"]) == ("efficientnet-lite0", None)
    copy = altered_copy(SAMPLES / "coffee.jpg")
    found = httpx.post(
        f"{up.url}/api/v1/images/search",
        data={"tenantId": "demo", "threshold": "-1"},
        files={"queryImage": ("query.jpg", copy)},
    ).json()
    first, second = found["results"][:2]
    assert first["fileName"] == "coffee.jpg"
    assert first["similarityScore"] > 0.8 > second["similarityScore"]

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
        **NO_NETWORK,
    )

    assert "connect this machine to the network" in said
    assert not list((tmp_path / "jars").rglob("*")), "nothing is left of the attempt"


def test_a_broker_of_ones_own_is_not_for_this_command(tmp_path: Path) -> None:
    said = refused("--data-dir", str(tmp_path), DEEPLENS_BROKER="kafka://127.0.0.1:9")

    assert "DEEPLENS_BROKER is set" in said
