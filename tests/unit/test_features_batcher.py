"""Micro-batching: when batches leave, who is in them, and what failing ones do to others."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from deeplens_streams.errors import ExtractorUnavailable
from deeplens_streams.features.batcher import Batcher

LONG_S = 60.0


class Recorder:
    """Doubles numbers, remembers its batches, and can be held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, batch: list[int]) -> list[int]:
        self.batches.append(batch)
        self.go.wait(10)
        if any(item < 0 for item in batch):
            raise ValueError("a bad item")
        return [item * 2 for item in batch]


@asynccontextmanager
async def batching(
    run: Recorder, *, size: int = 4, wait_s: float = LONG_S, parallel: int = 1
) -> AsyncIterator[Batcher[int, int]]:
    with ThreadPoolExecutor(parallel) as executor:
        batcher = Batcher(run, size=size, wait_s=wait_s, executor=executor, parallel=parallel)
        try:
            yield batcher
        finally:
            run.go.set()
            await batcher.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 -- a thread changes it
            await asyncio.sleep(0.001)


async def test_a_full_batch_leaves_at_once() -> None:
    run = Recorder()
    async with batching(run) as batcher:
        assert await asyncio.gather(*map(batcher.submit, range(4))) == [0, 2, 4, 6]
    assert run.batches == [[0, 1, 2, 3]]


async def test_an_idle_model_waits_a_little_for_more() -> None:
    run = Recorder()
    async with batching(run, wait_s=0.02) as batcher:
        assert await asyncio.gather(*map(batcher.submit, range(2))) == [0, 2]
    assert run.batches == [[0, 1]]


async def test_while_the_model_is_busy_the_next_batch_gathers() -> None:
    run = Recorder()
    run.go.clear()
    async with batching(run, wait_s=0) as batcher:
        tasks = [asyncio.create_task(batcher.submit(0))]
        await until(lambda: run.batches)
        tasks += [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3)]
        await asyncio.sleep(0)
        run.go.set()
        assert await asyncio.gather(*tasks) == [0, 2, 4, 6]
    assert run.batches == [[0], [1, 2, 3]]


async def test_urgent_items_do_not_wait_and_go_first_and_alone() -> None:
    run = Recorder()
    run.go.clear()
    async with batching(run, size=2) as batcher:
        tasks = [asyncio.create_task(batcher.submit(0, urgent=True))]
        await until(lambda: run.batches)
        tasks += [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3, 4)]
        tasks.append(asyncio.create_task(batcher.submit(9, urgent=True)))
        await asyncio.sleep(0)
        run.go.set()
        await asyncio.gather(*tasks)
    assert run.batches == [[0], [9], [1, 2], [3, 4]]


async def test_urgent_items_without_an_end_let_others_through() -> None:
    run = Recorder()
    async with batching(run, size=3) as batcher:

        async def search() -> None:
            while not patient.done():
                await batcher.submit(9, urgent=True)

        patient = asyncio.create_task(batcher.submit(1))
        async with asyncio.timeout(10):
            await asyncio.gather(search(), search())
    assert run.batches[0] == [9]
    assert 1 in run.batches[1]


async def test_free_lanes_share_what_waits() -> None:
    run = Recorder()
    async with batching(run, size=4, parallel=2) as batcher:
        await asyncio.gather(*map(batcher.submit, range(4)))
    assert sorted(map(len, run.batches)) == [2, 2]


async def test_one_bad_item_fails_alone() -> None:
    async with batching(Recorder()) as batcher:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, -1, 2, 3)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [result for result in results if isinstance(result, int)] == [2, 4, 6]
    assert isinstance(results[1], ValueError)


async def test_a_wrong_number_of_results_is_an_error_and_no_hang() -> None:
    with ThreadPoolExecutor(1) as executor:
        batcher: Batcher[int, int] = Batcher(lambda _: [], size=1, wait_s=0, executor=executor)
        with pytest.raises(RuntimeError, match="1 items made 0 results"):
            await batcher.submit(1)
        await batcher.close()


async def test_a_cancelled_caller_leaves_the_others_alone() -> None:
    run = Recorder()
    run.go.clear()
    async with batching(run, size=3) as batcher:
        inside = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3)]
        await until(lambda: run.batches)
        waiting = [asyncio.create_task(batcher.submit(item)) for item in (4, 5, 6, 7)]
        await asyncio.sleep(0)
        inside[0].cancel()
        waiting[0].cancel()
        await asyncio.wait({inside[0], waiting[0]})
        run.go.set()
        assert await asyncio.gather(*inside[1:], *waiting[1:]) == [4, 6, 10, 12, 14]
    assert run.batches == [[1, 2, 3], [5, 6, 7]]


async def test_closing_fails_what_waits_and_what_comes() -> None:
    run = Recorder()
    run.go.clear()
    with ThreadPoolExecutor(1) as executor:
        batcher: Batcher[int, int] = Batcher(run, size=1, wait_s=0, executor=executor)
        tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2)]
        await until(lambda: run.batches)
        closing = asyncio.create_task(batcher.close())
        results = await asyncio.gather(*tasks, return_exceptions=True)
        run.go.set()
        await closing
        assert all(isinstance(result, ExtractorUnavailable) for result in results)
        with pytest.raises(ExtractorUnavailable):
            await batcher.submit(3)
    assert run.batches == [[1]]
