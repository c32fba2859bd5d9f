"""A system of which all is lost comes back from its backup; what was damaged before is named."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from deeplens_streams.audit.settled import GRACE_S
from deeplens_streams.cli.demo import SAMPLES, altered_copy
from tests.support.up_command import Up, until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-m", "deeplens_streams.cli.main"]
OPERATOR = "operator-" + "y" * 40
WITH_KEYS = ("env", f"DEEPLENS_ADMIN_KEY={OPERATOR}")
#: Each is a process, and the first that find something come two minutes behind a start.
AUDIT_EVERY_S = 5.0
NAMES = ("chelsea", "coffee", "rocket", "camera", "astronaut", "clock")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    system = Up(tmp_path)
    yield system
    for process in system.seen:
        if process.is_running():
            process.kill()
    if system.process is not None:
        system.process.wait()


class Commands:
    """The commands beside a system."""

    def __init__(self, up: Up) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("DEEPLENS_")}
        self._environment = clean | {
            "DEEPLENS_DATA_DIR": str(up.data),
            "DEEPLENS_URL": up.url,
            "DEEPLENS_API_KEY": OPERATOR,
        }

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path, status: int = 0) -> list[dict[str, Any]]:
        """Return what a command says in JSON."""
        process = self.start(*arguments, "--json")
        out, err = process.communicate(timeout=120)
        assert process.returncode == status, (arguments, out, err)
        return [json.loads(line) for line in out.splitlines()]

    def audit(self, *options: str) -> dict[str, Any]:
        process = self.start("audit", "--json", *options)
        out, _ = process.communicate(timeout=120)
        lines = [json.loads(line) for line in out.splitlines()]
        return next(line for line in lines if line["type"] == "total")


def headers(key: str) -> dict[str, str]:
    return {"X-API-Key": key}


def made(up: Up, tenant: str) -> str:
    """Make a tenant, and return its key."""
    answer = httpx.post(
        f"{up.url}/api/v1/admin/tenants",
        json={"tenantId": tenant},
        headers=headers(OPERATOR),
        timeout=60,
    )
    return str(answer.json()["apiKey"])


def upload(up: Up, name: str, key: str) -> str:
    answer = httpx.post(
        f"{up.url}/api/v1/images/upload",
        data={"skipDuplicateCheck": "true"},
        headers=headers(key),
        files={"file": (f"{name}.jpg", (SAMPLES / f"{name}.jpg").read_bytes())},
        timeout=60,
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["imageId"])


def completed(up: Up, ids: list[str]) -> None:
    def is_completed(image_id: str) -> bool:
        answer = httpx.get(
            f"{up.url}/api/v1/images/{image_id}/status", headers=headers(OPERATOR), timeout=60
        )
        return bool(answer.json().get("status") == "completed")

    for image_id in ids:
        until(partial(is_completed, image_id), what=image_id)


def most_alike(up: Up, name: str, key: str) -> str:
    answer = httpx.post(
        f"{up.url}/api/v1/images/search",
        data={"limit": "1"},
        headers=headers(key),
        files={"queryImage": ("query.jpg", altered_copy(SAMPLES / f"{name}.jpg"))},
        timeout=60,
    )
    return str(answer.json()["results"][0]["imageId"])


def damage_one_of_each(data: Path) -> set[str]:
    """Damage a stopped system's folder, and return what that is called."""
    original = next((data / "images").glob("acme/original/**/*.jpg"))
    original.write_bytes(original.read_bytes()[:100])
    tables = (data / "state").glob("api/v*/tables/image_status-*.db/MANIFEST-*")
    next(iter(sorted(tables))).write_bytes(b"")
    logs = (data / "kafka/data").glob("deeplens.images.uploaded-*/*.log")
    log = next(path for path in logs if path.stat().st_size > 100)
    raw = bytearray(log.read_bytes())
    raw[80] ^= 1
    log.write_bytes(raw)
    next((data / "vectors").glob("*_vectors/edge_config.json")).write_bytes(b"{")
    return {"original_damaged", "table_damaged", "kafka_log_damaged", "collection_damaged"}


def test_all_is_lost_and_comes_back(up: Up, tmp_path: Path) -> None:
    commands, there = Commands(up), tmp_path / "backup"
    up.start("--no-demo", wrapper=WITH_KEYS)
    up.until_ready()
    acme, globex = made(up, "acme"), made(up, "globex")
    ids = {name: upload(up, name, acme) for name in NAMES[:3]}
    deleted = upload(up, "brick", acme)
    completed(up, [*ids.values(), deleted])
    image = f"{up.url}/api/v1/images/{deleted}"
    gone = httpx.delete(image, headers=headers(acme), timeout=60)
    assert gone.status_code in (200, 202), gone.text
    backing_up = commands.start("backup", there)
    others = {name: upload(up, name, globex) for name in NAMES[3:]}
    said = backing_up.communicate(timeout=120)
    assert backing_up.returncode == 0, said
    completed(up, list(others.values()))
    last = commands.run("backup", there)[-1]
    assert last["faults"] == {}
    assert commands.run("backup", "--verify", there)[-1]["faults"] == {}
    accepted = commands.audit()["accepted"]
    assert accepted == len(NAMES) + 1

    # Stopped, its folder is sound; then something of everything is damaged, and all of it lost.
    assert up.end(signal.SIGINT) == 0
    looked = commands.run("doctor", "--data")[-1]
    assert looked["faults"] == {}, looked
    assert looked["leftOut"] == []
    kinds = damage_one_of_each(up.data)
    found = commands.run("doctor", "--data", status=1)
    assert {each["kind"] for each in found[:-1]} == kinds
    shutil.rmtree(up.data)

    restored = commands.run("restore", there)[-1]
    assert restored["faults"] == {}
    up.start("--no-demo", wrapper=WITH_KEYS)
    up.until_ready()
    until(
        lambda: commands.audit("--repair")["repaired"] >= len(NAMES),
        seconds=GRACE_S + 90,  # What a start wrote again may be under way for so long.
        what=up.words(),
        poll_s=AUDIT_EVERY_S,
    )
    completed(up, [*ids.values(), *others.values()])

    def is_whole() -> bool:
        total = commands.audit()
        counts = (total["accepted"], total["completed"], total["deleted"])
        return total["balanced"] and counts == (accepted, len(NAMES), 1)

    until(is_whole, what=str(commands.audit()), poll_s=1)
    # The keys of before let in, each to its own.
    for key, images in ((acme, ids), (globex, others)):
        for name, image_id in images.items():
            assert most_alike(up, name, key) == image_id
    assert httpx.get(image, headers=headers(acme), timeout=60).status_code in (404, 410)
    assert httpx.get(image, headers=headers(globex), timeout=60).status_code == 404
    assert up.end(signal.SIGINT) == 0
