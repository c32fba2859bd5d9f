"""The bound on memory in flight."""

import asyncio

import pytest

from deeplens_streams.storage.blobs.memory_budget import MIB, MemoryBudget


async def test_no_more_is_out_than_there_is() -> None:
    budget = MemoryBudget(10)
    out = most = 0

    async def work(size: int) -> None:
        nonlocal out, most
        async with budget.take(size * MIB):
            out += min(size, 10)
            most = max(most, out)
            await asyncio.sleep(0)
            out -= min(size, 10)

    await asyncio.gather(*(work(size) for size in (1, 3, 7, 10, 50, 2, 9, 1, 1, 1, 6) * 5))
    assert most == 10


async def test_a_large_one_is_not_overtaken_for_ever() -> None:
    budget = MemoryBudget(4)
    done = []

    async def work(name: str, size: int) -> None:
        async with budget.take(size * MIB):
            await asyncio.sleep(0)
            done.append(name)

    await asyncio.gather(work("a", 3), work("large", 4), work("b", 1), work("c", 1))
    assert done == ["a", "large", "b", "c"]


async def test_what_is_cancelled_gives_everything_back() -> None:
    budget = MemoryBudget(4)
    async with budget.take(3 * MIB):
        waiting = [asyncio.create_task(_hold(budget)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    async with asyncio.timeout(10), budget.take(4 * MIB):
        pass


async def _hold(budget: MemoryBudget) -> None:
    with pytest.raises(asyncio.CancelledError):
        async with budget.take(2 * MIB):
            await asyncio.Event().wait()
