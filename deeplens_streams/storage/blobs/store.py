"""Objects by key in any backend: the only place that calls it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import LocalStore, MemoryStore

from deeplens_streams.errors import NotFound
from deeplens_streams.storage.blobs.errors import storage_faults
from deeplens_streams.storage.blobs.memory_budget import MIB, MemoryBudget

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ObjectStore

JSON = "application/json"

#: Bytes of one piece that `stream` yields, at the most: so many are held for each slow client.
_CHUNK = MIB // 8
#: Objects of a listing that are in memory together; S3 tells of 1,000 in one answer.
_LISTED = 500
#: Up to here a remote object is one request: one round trip, and nothing left if it fails.
_WHOLE_MAX = 16 * MIB
#: A part of a larger one; S3 takes none under 5 MiB.
_PART = 8 * MIB
_PARTS_AT_ONCE = 2
#: Of all uploads in flight; what the allocator keeps beside it is about as much again.
_BUDGET_MIB = 32


class AlreadyThere(Exception):
    """A write that was to make an object found one."""


@dataclass(frozen=True, slots=True)
class Write:
    """One object to be written.

    Attributes
    ----------
    source : its bytes; a file that may be moved away; or what is called for the bytes when it is
        this object's turn.
    if_absent : raise `AlreadyThere` rather than replace.
    """

    key: str
    source: bytes | Path | Callable[[], bytes]
    content_type: str = JSON
    if_absent: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing says of an object.

    Attributes
    ----------
    size : bytes.
    stamp : changes with the object; what it means is the backend's.
    """

    key: str
    size: int
    stamp: str


class Blobs:
    """Objects on an obstore store. Every write is there whole or not at all."""

    def __init__(self, store: "ObjectStore") -> None:
        self._store = store
        self._has_attributes = not isinstance(store, LocalStore | MemoryStore)
        self._budget = MemoryBudget(_BUDGET_MIB)

    # Writing -----------------------------------------------------------------------------

    async def put(self, *writes: Write, action: str) -> None:
        """Write objects one after the other.

        Parameters
        ----------
        action : what is being done, for the log.

        Raises
        ------
        AlreadyThere
            By the first write that may not replace what is there.
        """
        for write in writes:
            with storage_faults(action):
                await self._put(write)

    async def _put(self, write: Write) -> None:
        source = write.source() if callable(write.source) else write.source
        if not isinstance(source, Path):
            await self._send(write, source)
            return
        size = (await asyncio.to_thread(source.stat)).st_size
        in_parts = size > _WHOLE_MAX
        async with self._budget.take((_PARTS_AT_ONCE + 1) * _PART if in_parts else size):
            await self._send(write, source, in_parts=in_parts)

    async def _send(self, write: Write, source: bytes | Path, *, in_parts: bool = False) -> None:
        try:
            await obstore.put_async(
                self._store,
                write.key,
                source,
                attributes=self._attributes(write),
                mode="create" if write.if_absent else "overwrite",
                use_multipart=in_parts,
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
            )
        except AlreadyExistsError as error:
            raise AlreadyThere from error

    async def copy(self, source: str, target: str, *, action: str) -> bool:
        """Copy an object within the storage; False where there is none."""
        with storage_faults(action):
            try:
                await obstore.copy_async(self._store, source, target)
            except FileNotFoundError:
                return False
        return True

    async def swap(self, write: Write, *, old: bytes, action: str) -> bool:
        """Replace an object if its bytes are `old`; of several who try, one succeeds."""
        with storage_faults(action), suppress(FileNotFoundError, PreconditionError):
            found = await obstore.get_async(self._store, write.key)
            version = found.meta["e_tag"]
            if bytes(await found.bytes_async()) != old or version is None:
                return False
            assert isinstance(write.source, bytes), "what is swapped is small"
            await obstore.put_async(
                self._store,
                write.key,
                write.source,
                attributes=self._attributes(write),
                mode={"e_tag": version},
                use_multipart=False,
            )
            return True
        return False

    def _attributes(self, write: Write) -> dict[str, str] | None:
        return {"Content-Type": write.content_type} if self._has_attributes else None

    # Reading -----------------------------------------------------------------------------

    async def get(self, key: str, *, action: str) -> bytes | None:
        """Return an object's bytes, or None if there is none."""
        with storage_faults(action), suppress(FileNotFoundError):
            found = await obstore.get_async(self._store, key)
            return bytes(await found.bytes_async())
        return None

    async def size(self, key: str, *, action: str) -> int | None:
        """Return an object's size in bytes, or None if there is none."""
        with storage_faults(action), suppress(FileNotFoundError):
            return (await obstore.head_async(self._store, key))["size"]
        return None

    async def written_at(self, key: str, *, action: str) -> datetime | None:
        """Return when an object was written, or None if there is none."""
        with storage_faults(action), suppress(FileNotFoundError):
            return (await obstore.head_async(self._store, key))["last_modified"]
        return None

    async def stamp(self, key: str, *, action: str) -> str | None:
        """Return what changes with an object where the backend can tell; None if there is none."""
        with storage_faults(action), suppress(FileNotFoundError):
            found = await obstore.head_async(self._store, key)
            return f"{found['size']} {found['e_tag'] or found['last_modified'].isoformat()}"
        return None

    async def stream(
        self, key: str, *, start: int = 0, end: int | None = None, action: str
    ) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to before `end` in chunks of at most 128 KiB."""
        if end is not None and end <= start:
            return
        options: GetOptions = {}
        if end is not None:
            options = {"range": (start, end)}
        elif start:  # of nothing, there is no range
            options = {"range": {"offset": start}}
        with storage_faults(action):
            try:
                found = await obstore.get_async(self._store, key, options=options)
            except FileNotFoundError:
                raise NotFound("This object is gone.") from None
            async for chunk in found.stream(min_chunk_size=_CHUNK // 2):
                view = memoryview(chunk)
                for begin in range(0, len(view), _CHUNK):
                    yield bytes(view[begin : begin + _CHUNK])

    async def children(self, path: str, *, action: str) -> Sequence[str]:
        """Return what lies directly below `path`, as whole paths."""
        with storage_faults(action):
            listing = await obstore.list_with_delimiter_async(self._store, path)
        return [*listing["common_prefixes"], *(each["path"] for each in listing["objects"])]

    async def walk(self, path: str, *, action: str) -> AsyncGenerator[str]:
        """Yield every key below `path`, in no order and in bounded memory.

        What is written or removed meanwhile may be left out or not.
        """
        with storage_faults(action):
            async for listed in obstore.list(self._store, path, chunk_size=_LISTED):
                for each in listed:
                    yield each["path"]

    async def walk_listed(self, path: str, *, action: str) -> AsyncGenerator[Listed]:
        """Yield every object below `path` with its size and stamp, as `walk` does."""
        with storage_faults(action):
            async for listed in obstore.list(self._store, path, chunk_size=_LISTED):
                for each in listed:
                    stamp = each["e_tag"] or each["last_modified"].isoformat()
                    yield Listed(each["path"], each["size"], stamp)

    async def walk_unfinished(
        self, path: str, *, action: str
    ) -> AsyncGenerator[tuple[str, datetime]]:
        """Yield key and time of every write below `path` that has not ended; `delete` takes these.

        Where the time is long ago, its process was killed. Object stores show none.
        """
        nothing: Sequence[tuple[str, datetime]] = ()
        for each in nothing:
            yield each

    # Removing ----------------------------------------------------------------------------

    async def delete(self, key: str, *, action: str) -> None:
        """Remove an object; what is gone is no error."""
        with storage_faults(action), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, key)

    async def prune(self, path: str, *, action: str) -> None:
        """Remove folders at and below `path` that hold nothing; object stores have none."""
