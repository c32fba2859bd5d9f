"""More extract workers are faster, nearly in proportion: nothing but the model takes time here."""

import asyncio
from datetime import datetime
from pathlib import Path

import pytest

from deeplens_streams.broker import codec
from deeplens_streams.broker.topology import INDEXING
from deeplens_streams.host.ports import free_port
from models.events import VectorIndexingRequested
from tests.support.fault_injection import StubExtractor, small_pictures
from tests.support.pipeline import ends_of, read_all
from tests.support.system import System, Worker, until
from tests.support.uploads import Uploader

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.timeout(600)]

#: What a picture takes in the sleeping model.
SLEEP_MS = 200
#: How many there are for so many workers: several need so many that the fullest of four partitions
#: has little more than a quarter of them. One has all, and is as fast with fewer.
PICTURES = {1: 80, 2: 240, 4: 240}
#: The least speed-up over one worker.
WANTED = {2: 1.6, 4: 2.8}


async def rate(system: System, slow: StubExtractor, count: int, number: int) -> float:
    """Return pictures a second of `count` extract workers, from their first vector to the last."""
    before, pictures = await ends_of(system, INDEXING), PICTURES[count]
    workers: list[Worker] = []
    for each in range(count):
        worker = system.worker(
            f"extract-{number}-{each}",
            roles="extract",
            EXTRACTOR_URL=slow.url,
            EXTRACT_CONCURRENCY="1",
        )
        worker.start()
        workers.append(worker)
    await asyncio.gather(*(worker.until_ready() for worker in workers))
    book = await Uploader(system.workers[:1], at_once=16).send(
        small_pictures(pictures, seed=number), per_second=500
    )
    assert len(book.accepted) == pictures

    async def all_done() -> bool:
        # To read vectors takes the cores from those who are measured.
        so_far = sum((await ends_of(system, INDEXING)).values()) - sum(before.values())
        if so_far < pictures:
            return False
        return len({each.eventId for each in await vectors(system, before)}) >= pictures

    await until(all_done, f"{pictures} vectors by {count} workers", seconds=240, poll_s=0.5)
    await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in workers))
    at = sorted(
        datetime.fromisoformat(each.timestamp).timestamp() for each in await vectors(system, before)
    )
    return (len(at) - 1) / (at[-1] - at[0])


async def vectors(system: System, before: dict[int, int]) -> list[VectorIndexingRequested]:
    """Return what was sent behind these offsets."""
    messages = await read_all(system, INDEXING)
    return [
        codec.decode(VectorIndexingRequested, each.value)
        for each in messages
        if each.offset >= before.get(each.partition, 0)
    ]


async def test_two_and_four_extract_workers(system: System, tmp_path: Path) -> None:
    await system.started("api", roles="api,process")
    slow = StubExtractor(tmp_path / "slow", free_port(), sleep_ms=SLEEP_MS)
    slow.start()
    await slow.until_ready()
    try:
        rates = {
            count: await rate(system, slow, count, number)
            for number, count in enumerate((1, 2, 4), start=1)
        }
    finally:
        slow.stop()
    ratios = {count: rates[count] / rates[1] for count in WANTED}
    print(f"pictures a second {rates}, ratios {ratios}")  # noqa: T201 - what a run was worth
    assert all(ratios[count] >= wanted for count, wanted in WANTED.items()), ratios
