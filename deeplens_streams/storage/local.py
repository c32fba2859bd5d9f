"""Objects in a local folder: obstore's keys and files, without a hop into its runtime for each."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deeplens_streams.storage.blobs import AlreadyThere, Blobs, Write
from deeplens_streams.storage.faults import storage_faults
from deeplens_streams.storage.files import (
    finished_name,
    make_file,
    move_file,
    put_file,
    swap_file,
    unfinished,
)

if TYPE_CHECKING:
    from obstore.store import LocalStore

#: Bytes that are read on the event loop: asking a thread for them takes ten times as long.
_SMALL = 262_144
#: One event loop keeps no more of them busy.
_THREADS = 2
#: Unfinished writes that are in memory together.
_LISTED = 100

T = TypeVar("T")


class LocalBlobs(Blobs):
    """`Blobs` in a folder. Listing, streaming and removing stay obstore's."""

    def __init__(self, store: "LocalStore") -> None:
        super().__init__(store)
        self._folder = Path(store.prefix or "/")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")

    async def put(self, *writes: Write, action: str) -> None:
        def put() -> None:
            for write in writes:
                self._write(write)

        with storage_faults(action):
            await self._run(put)

    def _write(self, write: Write) -> None:
        path = self._folder / write.key
        if isinstance(write.source, Path):
            move_file(write.source, path)
            return
        data = write.source() if callable(write.source) else write.source
        if not write.if_absent:
            put_file(path, data)
        elif not make_file(path, data):
            raise AlreadyThere

    async def swap(self, write: Write, *, old: bytes, action: str) -> bool:
        data = write.source
        assert isinstance(data, bytes), "what is swapped is small"
        with storage_faults(action):
            return await self._run(lambda: swap_file(self._folder / write.key, old=old, new=data))

    async def get(self, key: str, *, action: str) -> bytes | None:
        with (
            storage_faults(action),
            suppress(FileNotFoundError),
            (self._folder / key).open("rb", buffering=0) as file,
        ):
            size = os.fstat(file.fileno()).st_size
            return file.read(size) if size <= _SMALL else await self._run(file.readall)
        return None

    async def walk_unfinished(
        self, path: str, *, action: str
    ) -> AsyncGenerator[tuple[str, datetime]]:
        found = unfinished(self._folder / path)
        with storage_faults(action):
            # Not in the threads that uploads wait for: a large folder takes a while.
            while some := await asyncio.to_thread(lambda: list(islice(found, _LISTED))):
                for file, at in some:
                    key = file.relative_to(self._folder).as_posix()
                    yield key, datetime.fromtimestamp(at, UTC)

    async def delete(self, key: str, *, action: str) -> None:
        if finished_name(key) is None:
            await super().delete(key, action=action)
            return
        with storage_faults(action):  # obstore knows no such key
            await self._run(partial((self._folder / key).unlink, missing_ok=True))

    async def prune(self, path: str, *, action: str) -> None:
        def prune() -> None:
            for folder, _, _ in os.walk(self._folder / path, topdown=False):
                with suppress(OSError):  # something is in it, or it went meanwhile
                    Path(folder).rmdir()

        with storage_faults(action):
            await self._run(prune)

    async def _run(self, work: Callable[[], T]) -> T:
        """Do blocking `work` in a thread; also when cancelled, it has ended afterwards.

        What a cancelled upload wrote is removed: nothing may be written behind that.
        """
        job = self._threads.submit(work)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            while not job.done():
                with suppress(asyncio.CancelledError, Exception):
                    await asyncio.wrap_future(job)
            raise
