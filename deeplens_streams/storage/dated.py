"""Objects under ``{folder}/{day}/{minute}/{ms}-{uuid}.json``, from the newest."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from deeplens_streams.storage import layout
from deeplens_streams.storage.blobs import Blobs
from deeplens_streams.storage.walk import MAX_AT_ONCE, in_order, newest_first

_DEPTH = 3
"""Levels below the folder: day, minute, object."""

T = TypeVar("T")


async def walk(
    blobs: Blobs,
    folder: str,
    read: Callable[[str], Awaitable[T | None]],
    *,
    before: str | None = None,
    at_once: int = MAX_AT_ONCE,
) -> AsyncGenerator[tuple[str, T]]:
    """Yield key and content of each object, newest first, in bounded memory.

    Parameters
    ----------
    read : returns what is at a key, or None for what is gone or cannot be shown.
    before : only what is older than the object at this key.
    at_once : how many are read together at first.
    """

    async def children(path: str) -> Sequence[str]:
        return await blobs.children(path, action="list")

    async def keyed(key: str) -> tuple[str, T | None]:
        return key, await read(key) if layout.read_dated_key(key) else None

    keys = newest_first(folder, children, depth=_DEPTH, before=before)
    async with aclosing(in_order(keys, keyed, at_once=min(at_once, MAX_AT_ONCE))) as found:
        async for key, content in found:
            if content is not None:
                yield key, content
