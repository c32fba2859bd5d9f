"""Walking through what is stored: in order, several at a time, no further than is asked for."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

#: Requests in flight for one listing.
MAX_AT_ONCE = 16

_T = TypeVar("_T")
_R = TypeVar("_R")


async def in_order(
    items: AsyncGenerator[_T], work: Callable[[_T], Awaitable[_R]], *, at_once: int = 1
) -> AsyncGenerator[_R]:
    """Yield ``work(item)`` for each item, in order, several at a time.

    Parameters
    ----------
    at_once : how many to begin with; doubled after each round, up to `MAX_AT_ONCE`, so that
        who stops early has waited for little and who goes on waits seldom.
    """
    width = min(at_once, MAX_AT_ONCE)
    waiting: list[_T] = []
    async with aclosing(items):
        async for item in items:
            waiting.append(item)
            if len(waiting) == width:
                for result in await asyncio.gather(*map(work, waiting)):
                    yield result
                waiting, width = [], min(2 * width, MAX_AT_ONCE)
        for result in await asyncio.gather(*map(work, waiting)):
            yield result


async def newest_first(
    folder: str,
    children: Callable[[str], Awaitable[Sequence[str]]],
    *,
    depth: int,
    before: str | None,
) -> AsyncGenerator[str]:
    """Yield what lies `depth` levels below `folder`, in descending order.

    Parameters
    ----------
    children : lists what lies directly below a path, as whole paths.
    before : only what sorts before this path, or None for all.
    """
    if depth == 0:
        yield folder
        return
    level = newest_first(folder, children, depth=depth - 1, before=before)
    async with aclosing(in_order(level, children)) as listings:
        async for paths in listings:
            for path in sorted(paths, reverse=True):
                if before is None or path < before:
                    yield path
