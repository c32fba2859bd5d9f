"""Many small pieces of work, so many at once."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")

#: Objects in hand at once.
AT_ONCE = 16


async def each(items: AsyncGenerator[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Do ``work(item)`` for every item; the first that fails ends it all."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> None:
        try:
            await work(item)
        finally:
            room.release()

    try:
        async with asyncio.TaskGroup() as group, aclosing(items):
            async for item in items:
                await room.acquire()
                group.create_task(one(item))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
