"""Images on any object store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.store import LocalStore, MemoryStore

from deeplens_streams.errors import NotFound
from deeplens_streams.identifiers import check_image_id, check_tenant_id
from deeplens_streams.storage import layout, objects
from deeplens_streams.storage.base import ListPage
from deeplens_streams.storage.budget import MIB, MemoryBudget
from deeplens_streams.storage.cursor import decode_cursor, encode_cursor
from deeplens_streams.storage.faults import storage_faults
from deeplens_streams.storage.walk import MAX_AT_ONCE, in_order, newest_first
from models.images import StoredImage

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CHUNK = MIB
"""Bytes of one piece that `stream` yields, at the most."""
_WHOLE_MAX = 16 * MIB
"""Up to here a remote object is one request: one round trip, and nothing left if it fails."""
_PART = 8 * MIB
"""A part of a larger one; S3 takes none under 5 MiB."""
_PARTS_AT_ONCE = 2
_BUDGET_MIB = 32
"""Of all uploads in flight; what the allocator keeps beside it is about as much again."""
_DEPTH = 3
"""Levels below a tenant's metadata folder: day, minute, object."""


class ObjectImages:
    """`ImageStorage` on an obstore store. It needs no closing."""

    def __init__(self, store: "ObjectStore") -> None:
        self._store = store
        self._has_attributes = not isinstance(store, LocalStore | MemoryStore)
        self._budget = MemoryBudget(_BUDGET_MIB)

    def original_key(self, *, tenant: str, image_id: str, uploaded_at: str, format: str) -> str:
        return layout.original_key(
            tenant=tenant, image_id=image_id, uploaded_at=uploaded_at, format=format
        )

    def thumbnail_key(self, *, tenant: str, image_id: str, uploaded_at: str) -> str:
        return layout.thumbnail_key(tenant=tenant, image_id=image_id, uploaded_at=uploaded_at)

    # Writing -----------------------------------------------------------------------------

    async def put_image(self, image: StoredImage, source: Path | bytes) -> None:
        tenant = image.tenantId
        # 1. bytes
        await self.put_original(
            tenant=tenant, key=image.originalKey, source=source, content_type=image.contentType
        )
        # 2. pointer
        await self.put_pointer(tenant=tenant, image_id=image.imageId, uploaded_at=image.uploadedAt)
        # 3. metadata object
        await self.put_metadata(image)

    async def put_original(
        self, *, tenant: str, key: str, source: Path | bytes, content_type: str
    ) -> None:
        layout.check_key(tenant=tenant, key=key)
        if isinstance(source, bytes):
            await self._put(key, source, content_type, "store an original")
            return
        with storage_faults("store an original"):
            size = (await asyncio.to_thread(source.stat)).st_size
            in_parts = size > _WHOLE_MAX
            memory = (_PARTS_AT_ONCE + 1) * _PART if in_parts else size
            async with self._budget.take(memory):
                await obstore.put_async(
                    self._store,
                    key,
                    source,
                    attributes={"Content-Type": content_type} if self._has_attributes else None,
                    use_multipart=in_parts,
                    chunk_size=_PART,
                    max_concurrency=_PARTS_AT_ONCE,
                )

    async def put_thumbnail(self, *, tenant: str, key: str, data: bytes) -> None:
        layout.check_key(tenant=tenant, key=key)
        await self._put(key, data, "image/jpeg", "store a thumbnail")

    async def put_pointer(self, *, tenant: str, image_id: str, uploaded_at: str) -> None:
        key, data = objects.pointer(tenant=tenant, image_id=image_id, uploaded_at=uploaded_at)
        await self._put(key, data, "application/json", "store a pointer")

    async def put_metadata(self, image: StoredImage) -> None:
        key, data = objects.metadata_of(image)
        await self._put(key, data, "application/json", "store metadata")

    async def _put(self, key: str, data: bytes, content_type: str, action: str) -> None:
        attributes = {"Content-Type": content_type} if self._has_attributes else None
        with storage_faults(action):
            await obstore.put_async(
                self._store, key, data, attributes=attributes, use_multipart=False
            )

    # Reading -----------------------------------------------------------------------------

    async def find(self, image_id: str) -> StoredImage | None:
        located = await self._locate(image_id)
        return await self._metadata(located[1]) if located else None

    async def get_metadata(
        self, *, tenant: str, image_id: str, uploaded_at: str | None = None
    ) -> StoredImage | None:
        if uploaded_at is not None:
            try:
                ms = layout.epoch_ms(uploaded_at)
            except ValueError:
                return None  # no image of ours has such a time
            return await self._metadata(
                layout.metadata_key(
                    tenant=check_tenant_id(tenant), image_id=check_image_id(image_id), ms=ms
                )
            )
        located = await self._locate(image_id)
        if located is None or located[0] != check_tenant_id(tenant):
            return None
        return await self._metadata(located[1])

    async def get(self, *, tenant: str, key: str) -> bytes | None:
        return await self._get(layout.check_key(tenant=tenant, key=key), "read an object")

    async def size(self, *, tenant: str, key: str) -> int | None:
        layout.check_key(tenant=tenant, key=key)
        with storage_faults("look up an object"), suppress(FileNotFoundError):
            return (await obstore.head_async(self._store, key))["size"]
        return None

    async def stream(
        self, *, tenant: str, key: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        layout.check_key(tenant=tenant, key=key)
        if end is not None and end <= start:
            return
        with storage_faults("stream an object"):
            try:
                found = await obstore.get_async(
                    self._store,
                    key,
                    options={"range": {"offset": start} if end is None else (start, end)},
                )
            except FileNotFoundError:
                raise NotFound("This object is gone.") from None
            async for chunk in found.stream(min_chunk_size=_CHUNK // 2):
                view = memoryview(chunk)
                for begin in range(0, len(view), _CHUNK):
                    yield bytes(view[begin : begin + _CHUNK])

    async def list_images(self, *, tenant: str, limit: int, cursor: str | None = None) -> ListPage:
        before = decode_cursor(tenant=tenant, cursor=cursor) if cursor else None
        folder = layout.metadata_folder(tenant)
        keys = newest_first(folder, self._children, depth=_DEPTH, before=before)
        images: list[StoredImage] = []
        last = ""
        # One more than asked for tells whether there is more.
        found = in_order(keys, self._listed, at_once=min(limit + 1, MAX_AT_ONCE))
        async with aclosing(found):
            async for key, image in found:
                if image is None:
                    continue
                if len(images) == limit:
                    return ListPage(images, encode_cursor(tenant=tenant, key=last))
                images.append(image)
                last = key
        return ListPage(images, None)

    async def _children(self, path: str) -> list[str]:
        with storage_faults("list images"):
            listing = await obstore.list_with_delimiter_async(self._store, path)
        return [*listing["common_prefixes"], *(each["path"] for each in listing["objects"])]

    async def _listed(self, key: str) -> tuple[str, StoredImage | None]:
        """Return the image at a listed key, or None if it is gone or cannot be shown."""
        if layout.read_metadata_key(key) is None:
            return key, None
        with suppress(objects.DamagedMetadata):  # one damaged object must not hide all older ones
            return key, await self._metadata(key)
        return key, None

    async def _locate(self, image_id: str) -> tuple[str, str] | None:
        """Return (tenant, metadata key) of an image that has a pointer."""
        image_id = check_image_id(image_id)
        data = await self._get(layout.pointer_key(image_id), "read a pointer")
        return None if data is None else objects.read_pointer(image_id, data)

    async def _metadata(self, key: str) -> StoredImage | None:
        data = await self._get(key, "read metadata")
        return None if data is None else objects.read_metadata(key, data)

    async def _get(self, key: str, action: str) -> bytes | None:
        with storage_faults(action), suppress(FileNotFoundError):
            found = await obstore.get_async(self._store, key)
            return bytes(await found.bytes_async())
        return None

    # Removing and checking ---------------------------------------------------------------

    async def delete_metadata(self, *, tenant: str, image_id: str) -> None:
        located = await self._locate(image_id)
        if located is None or located[0] != check_tenant_id(tenant):
            return
        # 1. The metadata object: from here on the image is gone.
        await self._delete(located[1])
        # 2. The pointer, without which the first could not be found again.
        await self._delete(layout.pointer_key(image_id))

    async def delete_object(self, *, tenant: str, key: str) -> None:
        await self._delete(layout.check_key(tenant=tenant, key=key))

    async def _delete(self, key: str) -> None:
        with storage_faults("remove an object"), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, key)

    async def ping(self) -> None:
        # Writing is what an upload needs, and the same object each time leaves no litter.
        await self._put(layout.PING_KEY, b".", "text/plain", "check the storage")
