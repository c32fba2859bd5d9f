"""``deeplens backup`` and ``restore`` as commands: killed, damaged, refused."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deeplens_streams.config import Settings
from deeplens_streams.storage import Blobs, blobs_at
from tests.support.backups import World, contents, shown

COUNT = 400
COMMAND = [sys.executable, "-m", "deeplens_streams.cli.main"]


def environment(data: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DEEPLENS_")}
    return clean | {"DEEPLENS_DATA_DIR": str(data)}


def run(data: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(data),
        capture_output=True,
        text=True,
        check=False,
    )


def folder(path: Path) -> Blobs:
    return blobs_at(path.as_uri(), Settings())


def objects(path: Path) -> int:
    return sum(1 for each in path.rglob("*.jpg") if each.is_file())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with images, which no test changes."""
    data = tmp_path_factory.mktemp("data")
    world = World(folder(data / "images"))

    async def fill() -> None:
        for _ in range(COUNT):
            await world.upload()

    asyncio.run(fill())
    return data


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_killed_it_goes_on(tmp_path: Path, data: Path, command: str) -> None:
    there, again = tmp_path / "there", tmp_path / "again"
    written, system = there, data
    if command == "restore":
        assert run(data, "backup", there).returncode == 0
        written, system = again / "images", again
    process = subprocess.Popen([*COMMAND, command, str(there)], env=environment(system))
    deadline = time.monotonic() + 60
    while objects(written) < COUNT * 3 // 4:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert objects(written) < COUNT
    asyncio.run(shown(folder(written)))  # none without its bytes
    if command == "backup":
        cut = run(data, "backup", "--verify", there)
        assert (cut.returncode, "has finished" in cut.stderr) == (1, True), cut.stderr
    ended = run(system, command, there, "--json")
    assert ended.returncode == 0, ended.stderr
    total = json.loads(ended.stdout.splitlines()[-1])
    # What was there, and noted, is not copied again.
    assert total["copied"] < 4 * COUNT
    before = asyncio.run(contents(folder(data / "images")))
    assert asyncio.run(contents(folder(written))) == before


def test_what_is_damaged_is_named(tmp_path: Path, data: Path) -> None:
    there, again = tmp_path / "there", tmp_path / "again"
    ended = run(data, "backup", there)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"holds {4 * COUNT} objects" in ended.stdout
    first, second = sorted(path for path in there.rglob("*.jpg"))[:2]
    original = first.relative_to(there).as_posix()
    metadata = next(there.rglob(f"metadata/**/*{second.stem}.json"))
    first.write_bytes(b"")
    metadata.unlink()
    for arguments in (("backup", "--verify"), ("restore",)):
        ended = run(again, *arguments, there)
        assert ended.returncode == 1
        assert f"{original}: damaged" in ended.stderr
        assert f"{metadata.relative_to(there)}: missing" in ended.stderr
        assert ended.stderr.splitlines()[-1].startswith("deeplens: 1 damaged, 1 missing; ")
    lines = run(data, "backup", "--verify", "--json", there).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert {(each["key"], each["fault"]) for each in found[:-1]} == {
        (original, "damaged"),
        (str(metadata.relative_to(there)), "missing"),
    }
    assert found[-1]["faults"] == {"damaged": 1, "missing": 1}
