"""What a backup is made of: its catalogue, its manifest's pieces, its lease, its bounds."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import orjson
import pytest
from obstore.store import MemoryStore

from deeplens_streams.backup import manifest
from deeplens_streams.backup.catalogue import PAGE, Catalogue, Entry
from deeplens_streams.backup.errors import BackupRefused
from deeplens_streams.backup.journal import Lease
from deeplens_streams.backup.parallel import AT_ONCE, each
from deeplens_streams.storage import Blobs
from deeplens_streams.storage.blobs.store import Write

RUNNING = ".backup/running.json"


def entry(key: str, size: int = 1) -> Entry:
    return Entry(key, size, "0" * 64, stamp="s")


def test_entries_come_by_key_and_may_change_meanwhile(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path)
    keys = [f"a/{number:06}" for number in range(2 * PAGE + 5)]
    catalogue.put(*(entry(key) for key in reversed(keys)), entry("a0"), entry("a-"), seen=False)
    found = []
    for each_entry in catalogue.entries(below="a/"):
        found.append(each_entry.key)
        catalogue.remove(each_entry.key)
    assert found == keys
    assert [each_entry.key for each_entry in catalogue.entries()] == ["a-", "a0"]
    assert catalogue.mark("a0")
    assert not catalogue.mark("a1")
    assert [each_entry.key for each_entry in catalogue.entries(seen=False)] == ["a-"]
    catalogue.add([entry("a0", 9), entry("a1", 9)])
    assert catalogue.totals() == (3, 11)
    assert catalogue.get("a0") == entry("a0")


async def test_a_new_object_makes_few_pieces_new(tmp_path: Path) -> None:
    catalogue, blobs = Catalogue(tmp_path), Blobs(MemoryStore())
    catalogue.put(*(entry(f"t/{number:08}") for number in range(40_000)), seen=True)
    empty = manifest.Manifest(
        run="r",
        source="s",
        started="",
        finished="",
        objects=0,
        bytes=0,
        thumbnails=False,
        pieces=[],
    )
    first = await manifest.finish(blobs, catalogue, empty, manifest.Known())
    assert len(first.pieces) > 5
    assert sum(piece.objects for piece in first.pieces) == first.objects == 40_000
    catalogue.put(entry("t/00030000-new"), seen=True)
    second = await manifest.finish(blobs, catalogue, empty, manifest.Known(first))
    assert len(set(second.pieces) - set(first.pieces)) <= 2
    # What the first alone had is gone, and the second reads as it was written.
    there = {key async for key in blobs.walk(".backup/objects", action="test")}
    assert there == {piece.key for piece in second.pieces}
    (tmp_path / "again").mkdir()
    again = Catalogue(tmp_path / "again")
    known = await manifest.load(blobs, again)
    assert (known.manifest, known.damaged) == (second, [])
    assert list(again.entries()) == list(catalogue.entries())


async def test_so_many_at_once_and_the_first_error_ends_it() -> None:
    running = most = 0

    async def items() -> AsyncGenerator[int]:
        for number in range(200):
            yield number

    async def work(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        if number == 150:
            raise KeyError(number)

    with pytest.raises(KeyError, match="150"):
        await each(items(), work)
    assert most <= AT_ONCE


@pytest.mark.parametrize(
    ("host", "pid", "age_s", "is_dead"),
    [
        (socket.gethostname(), 2**22 + 1, 0, True),
        (socket.gethostname(), 1, 0, False),
        ("elsewhere", 1, 0, False),
        ("elsewhere", 1, 1000, True),
        (None, None, None, True),
    ],
)
async def test_a_lease_is_taken_from_the_dead_alone(
    host: str | None, pid: int | None, age_s: int | None, is_dead: bool
) -> None:
    blobs = Blobs(MemoryStore())
    if age_s is None:
        raw = b"{"
    else:
        raw = orjson.dumps({"host": host, "pid": pid, "at": time.time() - age_s})
    await blobs.put(Write(RUNNING, raw), action="test")
    lease = Lease(blobs)
    if not is_dead:
        with pytest.raises(BackupRefused, match="Another"):
            await lease.take()
        return
    await lease.take()
    with pytest.raises(BackupRefused, match="Another"):
        await Lease(blobs).take()
    await lease.release()
    await Lease(blobs).take()
