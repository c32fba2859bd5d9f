"""Images on any object store."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from datetime import datetime
from pathlib import Path

from deeplens_streams.identifiers import check_image_id, check_tenant_id, is_tenant_id
from deeplens_streams.storage import image_objects, object_keys
from deeplens_streams.storage.base import ListPage
from deeplens_streams.storage.blobs.store import Blobs, Write
from deeplens_streams.storage.listing import by_date
from deeplens_streams.storage.listing.cursor import decode_cursor, encode_cursor
from models.deletion import Tombstone
from models.images import StoredImage


class ObjectImages:
    """`ImageStorage` on `Blobs`. It needs no closing."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def original_key(self, *, tenant: str, image_id: str, uploaded_at: str, format: str) -> str:
        return object_keys.original_key(
            tenant=tenant, image_id=image_id, uploaded_at=uploaded_at, format=format
        )

    def thumbnail_key(self, *, tenant: str, image_id: str, uploaded_at: str) -> str:
        return object_keys.thumbnail_key(tenant=tenant, image_id=image_id, uploaded_at=uploaded_at)

    # Writing -----------------------------------------------------------------------------

    async def put_image(
        self, image: StoredImage, source: Path | bytes, *, claim: Write | None = None
    ) -> None:
        original = object_keys.check_key(tenant=image.tenantId, key=image.originalKey)
        writes = [
            # 1. the claim that these bytes are new
            *([claim] if claim else []),
            # 2. bytes
            Write(original, source, image.contentType),
            # 3. pointer
            Write(*image_objects.pointer_of(image)),
            # 4. metadata object
            Write(*image_objects.metadata_of(image)),
        ]
        await self._blobs.put(*writes, action="store a picture")

    async def put_thumbnail(self, *, tenant: str, key: str, data: bytes) -> None:
        write = Write(object_keys.check_key(tenant=tenant, key=key), data, "image/jpeg")
        await self._blobs.put(write, action="store a thumbnail")

    # Reading -----------------------------------------------------------------------------

    async def find(self, image_id: str) -> StoredImage | None:
        located = await self._locate(image_id)
        return await self._metadata(located[1]) if located else None

    async def get_metadata(
        self, *, tenant: str, image_id: str, uploaded_at: str | None = None
    ) -> StoredImage | None:
        if uploaded_at is not None:
            try:
                ms = object_keys.epoch_ms(uploaded_at)
            except ValueError:
                return None  # no image of ours has such a time
            return await self._metadata(
                object_keys.metadata_key(
                    tenant=check_tenant_id(tenant), image_id=check_image_id(image_id), ms=ms
                )
            )
        located = await self._locate(image_id)
        if located is None or located[0] != check_tenant_id(tenant):
            return None
        return await self._metadata(located[1])

    async def get(self, *, tenant: str, key: str) -> bytes | None:
        return await self._blobs.get(
            object_keys.check_key(tenant=tenant, key=key), action="read an object"
        )

    async def size(self, *, tenant: str, key: str) -> int | None:
        return await self._blobs.size(
            object_keys.check_key(tenant=tenant, key=key), action="look up an object"
        )

    def stream(
        self, *, tenant: str, key: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        object_keys.check_key(tenant=tenant, key=key)
        return self._blobs.stream(key, start=start, end=end, action="stream an object")

    async def list_images(self, *, tenant: str, limit: int, cursor: str | None = None) -> ListPage:
        before = None
        if cursor:
            ms, uuid = decode_cursor(tenant=tenant, cursor=cursor)
            before = object_keys.metadata_key(tenant=tenant, image_id=uuid, ms=ms)
        images: list[StoredImage] = []
        # One more than asked for tells whether there is more.
        async with aclosing(self._walk(tenant, before, at_once=limit + 1)) as found:
            async for _, image in found:
                if len(images) == limit:
                    return ListPage(images, self.cursor_after(images[-1]))
                images.append(image)
        return ListPage(images, None)

    def cursor_after(self, image: StoredImage) -> str:
        return encode_cursor(tenant=image.tenantId, key=image_objects.metadata_key_of(image))

    def survey(self, *, tenant: str) -> AsyncGenerator[tuple[str, StoredImage | None]]:
        return by_date.survey(
            self._blobs, object_keys.metadata_folder(tenant), image_objects.read_own_metadata
        )

    async def tenants(self) -> list[str]:
        found = []
        for path in await self._blobs.children("", action="list tenants"):
            name = path.rstrip("/")
            if not is_tenant_id(name):
                continue
            # The pointers' folders are called as a tenant may be, and one look at them whole
            # would list every image.
            # On a disk, folders may hold nothing but folders.
            async with aclosing(self.walk_keys(tenant=name)) as keys:
                if await anext(keys, None) is not None:
                    found.append(name)
        return sorted(found)

    async def walk_keys(self, *, tenant: str) -> AsyncGenerator[str]:
        for folder in object_keys.folders(tenant):
            async with aclosing(self._blobs.walk(folder, action="list a tenant")) as keys:
                async for key in keys:
                    yield key
        async with aclosing(self.walk_unfinished(tenant=tenant)) as writes:
            async for key, _ in writes:
                yield key

    async def walk_unfinished(self, *, tenant: str) -> AsyncGenerator[tuple[str, datetime]]:
        for folder in object_keys.folders(tenant):
            writes = self._blobs.walk_unfinished(folder, action="list unfinished writes")
            async with aclosing(writes):
                async for each in writes:
                    yield each

    async def walk_files(self, *, tenant: str) -> AsyncGenerator[tuple[str, str]]:
        for folder in object_keys.file_folders(tenant):
            async with aclosing(self._blobs.walk(folder, action="list files")) as keys:
                async for key in keys:
                    image_id = object_keys.read_file_key(key)
                    if image_id is not None:
                        yield key, image_id

    async def written_at(self, *, tenant: str, key: str) -> datetime | None:
        object_keys.check_key(tenant=tenant, key=key)
        return await self._blobs.written_at(key, action="look up an object")

    def _walk(
        self, tenant: str, before: str | None, at_once: int
    ) -> AsyncGenerator[tuple[str, StoredImage]]:
        folder = object_keys.metadata_folder(tenant)
        return by_date.walk(self._blobs, folder, self._listed, before=before, at_once=at_once)

    async def _listed(self, key: str) -> StoredImage | None:
        """Return the image at a listed key, or None if it is gone or cannot be shown."""
        with suppress(
            image_objects.DamagedMetadata
        ):  # one damaged object must not hide all older ones
            return await self._metadata(key)
        return None

    async def _locate(self, image_id: str) -> tuple[str, str] | None:
        """Return (tenant, metadata key) of an image that has a pointer."""
        image_id = check_image_id(image_id)
        data = await self._blobs.get(object_keys.pointer_key(image_id), action="read a pointer")
        if data is None:
            return None
        led = image_objects.read_pointer(image_id, data)
        return led.tenant, object_keys.metadata_key(tenant=led.tenant, image_id=image_id, ms=led.ms)

    async def _metadata(self, key: str) -> StoredImage | None:
        data = await self._blobs.get(key, action="read metadata")
        return None if data is None else image_objects.read_own_metadata(key, data)

    # Removing and checking ---------------------------------------------------------------

    async def delete_metadata(self, *, tenant: str, image_id: str) -> None:
        located = await self._locate(image_id)
        if located is None or located[0] != check_tenant_id(tenant):
            return
        # 1. The metadata object: from here on the image is gone.
        await self._blobs.delete(located[1], action="remove metadata")
        # 2. The pointer, without which the first could not be found again.
        await self._blobs.delete(object_keys.pointer_key(image_id), action="remove a pointer")

    async def remove_metadata(self, image: StoredImage | Tombstone) -> None:
        await self._blobs.delete(image_objects.metadata_key_of(image), action="remove metadata")

    async def delete_object(self, *, tenant: str, key: str) -> None:
        await self._blobs.delete(
            object_keys.check_key(tenant=tenant, key=key), action="remove an object"
        )

    async def remove_listed(self, *, tenant: str, key: str) -> None:
        object_keys.check_listed(tenant=tenant, key=key)
        pointer = object_keys.pointer_to(key)
        if pointer is not None:
            said = await self._blobs.get(pointer, action="read a pointer")
            if said is not None and not image_objects.is_another_s(said, tenant=tenant):
                # First: only by this key it is found again.
                await self._blobs.delete(pointer, action="remove a pointer")
        await self._blobs.delete(key, action="remove an object")

    async def forget_tenant(self, *, tenant: str) -> None:
        await self._blobs.prune(check_tenant_id(tenant), action="remove empty folders")

    async def ping(self) -> None:
        # Writing is what an upload needs, and the same object each time leaves no litter.
        write = Write(object_keys.PING_KEY, b".", "text/plain")
        await self._blobs.put(write, action="check the storage")
