"""Objects under ``{folder}/{day}/{minute}/{ms}-{uuid}.json``, from the newest."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from deeplens_streams.identifiers import IMAGE_ID_PREFIX
from deeplens_streams.storage import layout
from deeplens_streams.storage.blobs import Blobs
from deeplens_streams.storage.objects import DamagedMetadata
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
    """Yield key and content of each object, newest first.

    In memory are the keys of up to `MAX_AT_ONCE` minutes, and the contents of as many objects.

    Parameters
    ----------
    read : returns what is at a key, or None for what is gone or cannot be shown.
    before : only what is older than the object at this key.
    at_once : how many are read together at first.
    """
    minute = folder.count("/") + _DEPTH - 1

    async def children(path: str) -> Sequence[str]:
        if path.count("/") == minute:
            # All that a listing tells of an object takes ten times as much as its key.
            return [key async for key in blobs.walk(path, action="list")]
        return await blobs.children(path, action="list")

    async def keyed(key: str) -> tuple[str, T | None]:
        return key, await read(key) if layout.read_dated_key(key) else None

    keys = newest_first(folder, children, depth=_DEPTH, before=before)
    async with aclosing(in_order(keys, keyed, at_once=min(at_once, MAX_AT_ONCE))) as found:
        async for key, content in found:
            if content is not None:
                yield key, content


async def survey(
    blobs: Blobs, folder: str, parse: Callable[[str, bytes], T]
) -> AsyncGenerator[tuple[str, T | None]]:
    """Yield image ID and content of each object, in no order and in bounded memory.

    Parameters
    ----------
    parse : returns what the bytes at a key say; where it raises `DamagedMetadata`, the content
        is None.
    """

    async def read(key: str) -> tuple[str, T | None] | None:
        place = layout.read_dated_key(key)
        data = await blobs.get(key, action="read metadata") if place else None
        if place is None or data is None:  # a stranger's, or gone meanwhile
            return None
        image_id = f"{IMAGE_ID_PREFIX}{place[1]}"
        try:
            return image_id, parse(key, data)
        except DamagedMetadata:
            return image_id, None

    keys = blobs.walk(folder, action="list")
    async with aclosing(in_order(keys, read, at_once=MAX_AT_ONCE)) as found:
        async for each in found:
            if each is not None:
                yield each
