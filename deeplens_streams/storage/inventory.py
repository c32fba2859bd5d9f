"""What there is, key by key: for whoever compares it, and must not stumble over any of it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime

from deeplens_streams.storage import image_objects, object_keys, tombstones
from deeplens_streams.storage.blobs.store import Blobs, Write
from deeplens_streams.storage.object_keys import DatedKey
from models.deletion import Tombstone
from models.images import StoredImage


class Inventory:
    """Keys of all tenants, and what is at one of them.

    Nothing here looks at a pointer but `pointer`, and listings read no object: what is damaged is
    met by whoever asks for it.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def keys(self, folder: str) -> AsyncGenerator[str]:
        """Yield every key below `folder`, in no order and in bounded memory."""
        async with aclosing(self._blobs.walk(folder, action="take stock")) as keys:
            async for key in keys:
                yield key

    async def images(self, *, tenant: str) -> AsyncGenerator[DatedKey]:
        """Yield the key of every metadata object of a tenant."""
        async for each in self._dated(tenant, object_keys.metadata_folder(tenant)):
            yield each

    async def deleted(self, *, tenant: str) -> AsyncGenerator[DatedKey]:
        """Yield the key of every tombstone of a tenant."""
        async for each in self._dated(tenant, object_keys.tombstone_folder(tenant)):
            yield each

    async def _dated(self, tenant: str, folder: str) -> AsyncGenerator[DatedKey]:
        async with aclosing(self.keys(folder)) as keys:
            async for key in keys:
                dated = object_keys.read_dated(tenant=tenant, key=key)
                if dated is not None:
                    yield dated

    async def read(self, key: str) -> bytes | None:
        return await self._blobs.get(key, action="take stock")

    async def has(self, key: str) -> bool:
        return await self._blobs.size(key, action="take stock") is not None

    async def find_original(self, *, tenant: str, image_id: str, ms: int) -> str | None:
        """Return the key of the original of an image that was uploaded then, or None."""
        # Several formats share an extension.
        keys = dict.fromkeys(
            object_keys.original_key(
                tenant=tenant,
                image_id=image_id,
                uploaded_at=object_keys.time_of(ms),
                format=name,
            )
            for name in object_keys.EXTENSIONS
        )
        for key in keys:
            if await self.has(key):
                return key
        return None

    async def written_at(self, key: str) -> datetime | None:
        return await self._blobs.written_at(key, action="take stock")

    async def image(self, dated: DatedKey) -> StoredImage | None:
        """Return what a metadata object says, or None if it is gone.

        Raises
        ------
        DamagedMetadata
            It is none of this image.
        """
        data = await self.read(dated.key)
        return None if data is None else image_objects.read_own_metadata(dated.key, data)

    async def tombstone(self, dated: DatedKey) -> Tombstone | None:
        """Return what a tombstone says, or None if it is gone; raises as `image`."""
        data = await self.read(dated.key)
        return None if data is None else tombstones.read_tombstone(dated.key, data)

    async def pointer(self, image_id: str) -> image_objects.Pointer | None:
        """Return where an image's pointer leads, or None if there is none.

        Raises
        ------
        DamagedMetadata
            It cannot be read.
        """
        data = await self.read(object_keys.pointer_key(image_id))
        return None if data is None else image_objects.read_pointer(image_id, data)

    async def point(self, image_id: str, *, tenant: str, ms: int) -> None:
        """Write an image's pointer, whatever was there."""
        write = Write(*image_objects.pointer_to(image_id, tenant=tenant, ms=ms))
        await self._blobs.put(write, action="write a pointer")

    async def put_image(self, image: StoredImage, *, replace: bool) -> None:
        """Write a metadata object that was made again.

        Raises
        ------
        AlreadyThere
            There is one, and it is not to be replaced.
        """
        write = Write(*image_objects.metadata_of(image), if_absent=not replace)
        await self._blobs.put(write, action="write metadata again")
