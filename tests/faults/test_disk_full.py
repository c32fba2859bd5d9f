"""A disk that fills up: uploads stop at a reserve, what was accepted goes on, nothing breaks."""

import asyncio
import io
import shutil
import uuid
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from PIL import Image

from deeplens_streams.embedded_kafka.server import KafkaServer
from tests.faults.outages import steps_of
from tests.support.fault_injection import StubExtractor, fill, small_pictures
from tests.support.system import System, until
from tests.support.uploads import TENANT, Uploader

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

#: Above what the embedded vector engine keeps free for itself.
RESERVE = 400 * 1024 * 1024
#: Of a worker's log, for a full disk that is made room on.
LINES = 10


async def statuses(worker_url: str, system: System, count: int, seed: int) -> set[int]:
    uploader = Uploader([worker for worker in system.workers if worker.url == worker_url])
    async with aiohttp.ClientSession() as http:
        for number, picture in enumerate(small_pictures(count, seed=seed)):
            await uploader.one(http, f"{seed}-{number}.jpg", picture)
    found = {status for each in uploader.book.refused.values() for status in each}
    return found | ({202} if uploader.book.accepted else set())


async def test_images_state_and_vectors_on_a_disk_that_fills_up(
    system: System, stub: StubExtractor, small_disk: Path
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
    await asyncio.to_thread(stub.kill)
    book = await Uploader([worker], at_once=16).send(small_pictures(60, seed=4), per_second=1000)
    ballast = await asyncio.to_thread(fill, small_disk, 200 << 20)
    stub.start()
    await stub.until_ready()
    ids = list(book.accepted.values())

    async def one_waits() -> bool:
        steps = [(await steps_of(client, each))["vector_indexing"] for each in ids]
        assert not any(step["status"] == "completed" for step in steps)
        return any(step["status"] == "retrying" for step in steps)

    await until(one_waits, "a vector waits for room", seconds=30)
    ballast.unlink()
    states = await client.until_final(ids, seconds=30)
    assert set(states.values()) == {"completed"}

    # Full to the last byte with pictures on their way: the status table cannot be written either.
    # What was accepted goes on when there is room, in the same process, and it says so briefly.
    await asyncio.to_thread(stub.kill)
    book = await Uploader([worker], at_once=16).send(small_pictures(20, seed=7), per_second=1000)
    said = len(worker.log())
    ballast = await asyncio.to_thread(fill, small_disk, 0)
    stub.start()
    await stub.until_ready()

    async def table_is_full() -> bool:
        lines = worker.log()[said:].splitlines()
        return any("a dependency is away" in line and "tables" in line for line in lines)

    await until(table_is_full, "the table's disk is full", seconds=30)
    ballast.unlink()
    late = list(book.accepted.values())
    states = await client.until_final(late, seconds=60)
    assert set(states.values()) == {"completed"}
    lines = worker.log()[said:].splitlines()
    lines = [line for line in lines if "picture completed" not in line]
    assert len(lines) <= LINES, lines
    ids += late

    # Full to the last byte, killed and started again: what was accepted is there.
    fill(small_disk, 0)
    assert await statuses(worker.url, system, 5, seed=5) <= {503, 507}
    await asyncio.to_thread(worker.kill)
    (small_disk / "ballast").unlink()
    worker.start()
    await worker.until_ready()
    assert {(await client.status(each))["status"] for each in first + ids} == {"completed"}
    assert await statuses(worker.url, system, 3, seed=6) == {202}


def noise(count: int, *, side: int = 1300) -> list[bytes]:
    """Return pictures of about 5 MB."""
    rng = np.random.default_rng(7)
    pictures = []
    for _ in range(count):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "BMP")
        pictures.append(buffer.getvalue())
    return pictures


async def test_uploads_stop_before_kafka_on_the_same_disk_suffers(
    stub: StubExtractor, small_disk: Path, tmp_path: Path
) -> None:
    kafka = KafkaServer(small_disk / "kafka")
    await asyncio.to_thread(kafka.start)
    system = System(f"kafka://{kafka.bootstrap}", f"d{uuid.uuid4().hex[:8]}", tmp_path, stub.url)
    least = shutil.disk_usage(small_disk).free

    async def watch() -> None:
        nonlocal least
        while True:
            least = min(least, shutil.disk_usage(small_disk).free)
            await asyncio.sleep(0.01)

    try:
        worker = await system.started(
            "one",
            DATA_DIR=str(small_disk / "data"),
            STATE_DIR=str(small_disk / "state"),
            DISK_RESERVE_BYTES=str(RESERVE),
        )
        client = system.client(worker, TENANT)
        await client.until_final([await client.upload(small_pictures(1)[0])])
        # Room for about ten of the pictures that all come at once.
        ballast = await asyncio.to_thread(fill, small_disk, RESERVE + (60 << 20))
        watching = asyncio.create_task(watch())
        uploader = Uploader([worker])
        async with aiohttp.ClientSession() as http:
            pictures = [*noise(8)] * 5
            answers = (uploader.one(http, f"{n}.bmp", each) for n, each in enumerate(pictures))
            await asyncio.gather(*answers)
        book = uploader.book
        assert 1 <= len(book.accepted) < len(pictures)
        assert {status for each in book.refused.values() for status in each} == {507}
        states = await client.until_final(list(book.accepted.values()), seconds=60)
        assert set(states.values()) == {"completed"}
        watching.cancel()
        # What was accepted was processed out of the reserve, which is there for that.
        assert least > RESERVE - (30 << 20), least
        ballast.unlink()
        assert await statuses(worker.url, system, 3, seed=8) == {202}
    finally:
        await system.close()
        await asyncio.to_thread(kafka.stop)
