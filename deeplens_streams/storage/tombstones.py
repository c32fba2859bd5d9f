"""What remains of deleted images."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import datetime

import orjson
import structlog

from deeplens_streams.errors import DeepLensError
from deeplens_streams.storage import dated, layout, objects
from deeplens_streams.storage.blobs import Blobs, Write
from models.deletion import TenantPurge, Tombstone

log = structlog.get_logger()


class Tombstones:
    """The tombstones of all tenants."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def put(self, tombstone: Tombstone) -> None:
        write = Write(_key(tombstone), orjson.dumps(tombstone.to_wire()))
        await self._blobs.put(write, action="store a tombstone")

    async def find(self, image_id: str) -> Tombstone | None:
        """Return the tombstone by image ID alone, or None if the image was not deleted."""
        pointer = await self._blobs.get(layout.pointer_key(image_id), action="read a pointer")
        if pointer is None:
            return None
        tenant, metadata_key = objects.read_pointer(image_id, pointer)
        place = layout.read_dated_key(metadata_key)
        assert place is not None, "a pointer leads to a metadata key"
        key = layout.tombstone_key(tenant=tenant, image_id=image_id, ms=place[0])
        return await self._read(key)

    def survey(self, *, tenant: str) -> AsyncGenerator[tuple[str, Tombstone | None]]:
        """Yield image ID and tombstone, None for a damaged one; as `ImageStorage.survey` does."""
        return dated.survey(self._blobs, layout.tombstone_folder(tenant), _parsed)

    async def remove(self, tombstone: Tombstone) -> None:
        """Remove a tombstone, and the pointer by which it was found."""
        # 1. pointer, 2. tombstone, by which a purge that was cut off finds both
        for each in (layout.pointer_key(tombstone.imageId), _key(tombstone)):
            await self._blobs.delete(each, action="remove a tombstone")

    async def put_purge(self, purge: TenantPurge) -> None:
        write = Write(layout.purge_key(purge.tenantId), orjson.dumps(purge.to_wire()))
        await self._blobs.put(write, action="store a purge")

    async def find_purge(self, *, tenant: str) -> TenantPurge | None:
        """Return the tenant's last purge, or None if there was none."""
        raw = await self._blobs.get(layout.purge_key(tenant), action="read a purge")
        return None if raw is None else TenantPurge.from_wire(orjson.loads(raw))

    async def _read(self, key: str) -> Tombstone | None:
        raw = await self._blobs.get(key, action="read a tombstone")
        if raw is not None:
            with suppress(objects.DamagedMetadata):
                return _parsed(key, raw)
        return None


def _key(tombstone: Tombstone) -> str:
    ms = layout.epoch_ms(tombstone.uploadedAt)
    return layout.tombstone_key(tenant=tombstone.tenantId, image_id=tombstone.imageId, ms=ms)


def _parsed(key: str, raw: bytes) -> Tombstone:
    """Return the tombstone at `key`.

    Raises
    ------
    DamagedMetadata
        It cannot be read, or is none of this image.
    """
    reason = "it is of another image"
    try:
        tombstone = Tombstone.from_wire(orjson.loads(raw))
        datetime.fromisoformat(tombstone.requestedAt)
        if _key(tombstone) == key:
            return tombstone
    except (ValueError, DeepLensError) as error:
        reason = str(error)
    log.error("a tombstone is damaged", key=key, reason=reason)
    raise objects.DamagedMetadata
