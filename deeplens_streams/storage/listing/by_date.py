"""Objects under ``{folder}/{day}/{minute}/{ms}-{uuid}.json``, from the newest or in no order."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from deeplens_streams.identifiers import IMAGE_ID_PREFIX
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import Blobs
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.storage.listing.walk import MAX_AT_ONCE, in_order, newest_first

#: Levels below the folder: day, minute, object.
_DEPTH = 3

T = TypeVar("T")
R = TypeVar("R")


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
        return key, await read(key) if object_keys.read_dated_key(key) else None

    keys = newest_first(folder, children, depth=_DEPTH, before=before)
    async with aclosing(in_order(keys, keyed, at_once=min(at_once, MAX_AT_ONCE))) as found:
        async for key, content in found:
            if content is not None:
                yield key, content


async def each(
    blobs: Blobs, folder: str, read: Callable[[str], Awaitable[R | None]]
) -> AsyncGenerator[R]:
    """Yield the content of each object, in no order and in memory that is bounded.

    Parameters
    ----------
    read : as for `walk`.
    """

    async def content(key: str) -> R | None:
        return await read(key) if object_keys.read_dated_key(key) else None

    keys = blobs.walk(folder, action="list")
    async with aclosing(in_order(keys, content, at_once=MAX_AT_ONCE)) as found:
        async for one in found:
            if one is not None:
                yield one


def survey(
    blobs: Blobs, folder: str, parse: Callable[[str, bytes], T]
) -> AsyncGenerator[tuple[str, T | None]]:
    """Yield image ID and content of each object, as `each` does.

    Parameters
    ----------
    parse : returns what the bytes at a key say; where it raises `DamagedMetadata`, the content
        is None.
    """

    async def read(key: str) -> tuple[str, T | None] | None:
        place = object_keys.read_dated_key(key)
        data = await blobs.get(key, action="read metadata")
        if place is None or data is None:  # gone meanwhile
            return None
        image_id = f"{IMAGE_ID_PREFIX}{place[1]}"
        try:
            return image_id, parse(key, data)
        except DamagedMetadata:
            return image_id, None

    return each(blobs, folder, read)
