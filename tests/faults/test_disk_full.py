"""A disk that fills up: uploads stop at a reserve, what was accepted goes on, nothing breaks."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.faults.parts import fill, small_pictures
from tests.faults.test_outages import steps_of
from tests.faults.uploads import TENANT, Uploader
from tests.integration.system import System

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

#: Above what the embedded vector engine keeps free for itself.
RESERVE = 400 * 1024 * 1024


async def statuses(worker_url: str, system: System, count: int, seed: int) -> set[int]:
    uploader = Uploader([worker for worker in system.workers if worker.url == worker_url])
    async with aiohttp.ClientSession() as http:
        for number, picture in enumerate(small_pictures(count, seed=seed)):
            await uploader.one(http, f"{seed}-{number}.jpg", picture)
    found = {status for each in uploader.book.refused.values() for status in each}
    return found | ({202} if uploader.book.accepted else set())


async def test_images_state_and_vectors_on_a_disk_that_fills_up(
    system: System, small_disk: Path
) -> None:
    worker = await system.started(
        "one",
        DATA_DIR=str(small_disk / "data"),
        STATE_DIR=str(small_disk / "state"),
        DISK_RESERVE_BYTES=str(RESERVE),
    )
    client = system.client(worker, TENANT)
    book = await Uploader([worker]).send(small_pictures(20, seed=1), per_second=50)
    first = list(book.accepted.values())
    await client.until_final(first)

    # At the reserve: no upload is taken, all else works.
    ballast = fill(small_disk, RESERVE - (8 << 20))
    assert await statuses(worker.url, system, 10, seed=2) == {507}
    assert {(await client.status(each))["status"] for each in first} == {"completed"}
    assert len(await client.search(imageId=first[0], threshold=-1)) > 0
    ballast.unlink()
    assert await statuses(worker.url, system, 3, seed=3) == {202}

    # Others fill it with pictures on their way: vectors wait, and go on when there is room.
    book = await Uploader([worker], at_once=16).send(small_pictures(60, seed=4), per_second=1000)
    ballast = await asyncio.to_thread(fill, small_disk, 200 << 20)
    ids = list(book.accepted.values())
    await asyncio.sleep(10)
    waiting = [each for each in ids if (await client.status(each))["status"] == "processing"]
    if waiting:
        said = [(await steps_of(client, each))["vector_indexing"] for each in waiting]
        assert any(step["status"] == "retrying" for step in said), said
    ballast.unlink()
    states = await client.until_final(ids, seconds=30)
    assert set(states.values()) == {"completed"}

    # Full to the last byte, killed and started again: what was accepted is there.
    fill(small_disk, 0)
    assert await statuses(worker.url, system, 5, seed=5) <= {503, 507}
    await asyncio.to_thread(worker.kill)
    (small_disk / "ballast").unlink()
    worker.start()
    await worker.until_ready()
    assert {(await client.status(each))["status"] for each in first + ids} == {"completed"}
    assert await statuses(worker.url, system, 3, seed=6) == {202}
