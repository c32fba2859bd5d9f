"""Images in a local folder: obstore's keys and files, without a hop into its runtime for each."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deeplens_streams.storage import layout, objects
from deeplens_streams.storage.faults import storage_faults
from deeplens_streams.storage.files import move_file, put_file
from deeplens_streams.storage.images import ObjectImages
from models.images import StoredImage

if TYPE_CHECKING:
    from obstore.store import LocalStore

_SMALL = 262_144
"""Bytes that are read on the event loop: asking a thread for them takes ten times as long."""
_THREADS = 2
"""One event loop keeps no more of them busy."""

T = TypeVar("T")


class LocalImages(ObjectImages):
    """`ImageStorage` in a folder. Listing, streaming and removing stay obstore's."""

    def __init__(self, store: "LocalStore") -> None:
        super().__init__(store)
        self._folder = Path(store.prefix or "/")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")

    async def put_image(self, image: StoredImage, source: Path | bytes) -> None:
        original = layout.check_key(tenant=image.tenantId, key=image.originalKey)
        pointer, metadata = objects.pointer_of(image), objects.metadata_of(image)

        def put() -> None:
            # 1. bytes
            self._write_original(original, source)
            # 2. pointer
            self._write(*pointer)
            # 3. metadata object
            self._write(*metadata)

        with storage_faults("store a picture"):
            await self._run(put)

    async def put_original(
        self, *, tenant: str, key: str, source: Path | bytes, content_type: str
    ) -> None:
        layout.check_key(tenant=tenant, key=key)
        with storage_faults("store an original"):
            await self._run(lambda: self._write_original(key, source))

    async def _put(self, key: str, data: bytes, content_type: str, action: str) -> None:
        with storage_faults(action):
            await self._run(lambda: self._write(key, data))

    async def _get(self, key: str, action: str) -> bytes | None:
        with (
            storage_faults(action),
            suppress(FileNotFoundError),
            (self._folder / key).open("rb", buffering=0) as file,
        ):
            size = os.fstat(file.fileno()).st_size
            return file.read(size) if size <= _SMALL else await self._run(file.readall)
        return None

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

    def _write_original(self, key: str, source: Path | bytes) -> None:
        if isinstance(source, bytes):
            self._write(key, source)
        else:
            move_file(source, self._folder / key)

    def _write(self, key: str, data: bytes) -> None:
        put_file(self._folder / key, data)
