"""What remains of deleted images."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import datetime

import orjson

from deeplens_streams.errors import StorageUnavailable
from deeplens_streams.storage import image_objects, object_keys
from deeplens_streams.storage.blobs.errors import OnRefusal, raised
from deeplens_streams.storage.blobs.store import Blobs, Write
from deeplens_streams.storage.listing import by_date
from models.deletion import TenantPurge, Tombstone

#: Runs of one image, at the most: a purge looks for the letters of each.
_MAX_GENERATION = 100_000

_FIRST_ID = "00000000-0000-0000-0000-000000000000"


class Tombstones:
    """The tombstones of all tenants."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def put(self, tombstone: Tombstone) -> None:
        write = Write(_key(tombstone), orjson.dumps(tombstone.to_wire()))
        await self._blobs.put(write, action="store a tombstone")

    async def find(self, image_id: str) -> Tombstone | None:
        """Return the tombstone by image ID alone, or None if the image was not deleted."""
        pointer = await self._blobs.get(object_keys.pointer_key(image_id), action="read a pointer")
        if pointer is None:
            return None
        led = image_objects.read_pointer(image_id, pointer)
        key = object_keys.tombstone_key(tenant=led.tenant, image_id=image_id, ms=led.ms)
        return await self._read(key)

    def survey(self, *, tenant: str) -> AsyncGenerator[tuple[str, Tombstone | None]]:
        """Yield image ID and tombstone, None for a damaged one; as `ImageStorage.survey` does."""
        return by_date.survey(self._blobs, object_keys.tombstone_folder(tenant), read_tombstone)

    async def uploaded_before(
        self, moment: datetime, *, tenant: str, refused: OnRefusal = raised
    ) -> AsyncGenerator[Tombstone]:
        """Yield those of a tenant's images that were uploaded before `moment`, newest first.

        One that is damaged is left out.

        Parameters
        ----------
        refused : called with what cannot be read.
        """

        async def read(key: str) -> Tombstone | None:
            try:
                return await self._read(key)
            except StorageUnavailable as error:
                await refused(key, error)
                return None

        # Of all keys of this millisecond, the first.
        before = object_keys.tombstone_key(
            tenant=tenant, image_id=_FIRST_ID, ms=object_keys.epoch_ms(moment.isoformat())
        )
        folder = object_keys.tombstone_folder(tenant)
        walk = by_date.walk(self._blobs, folder, read, before=before)
        async with aclosing(walk) as found:
            async for _, tombstone in found:
                yield tombstone

    async def remove_unfinished(self, *, before: datetime, refused: OnRefusal = raised) -> None:
        """Remove files that a killed process had not written to their end, and that are no image's.

        Those below a tenant are an audit's to find.

        Parameters
        ----------
        refused : called with what cannot be removed.
        """
        for folder in (object_keys.DELETING, object_keys.REGISTRY, object_keys.PURGES):
            writes = self._blobs.walk_unfinished(folder, action="list unfinished writes")
            async with aclosing(writes):
                async for key, at in writes:
                    if at < before:
                        try:
                            await self._blobs.delete(key, action="remove an unfinished write")
                        except StorageUnavailable as error:
                            await refused(key, error)

    async def remove(self, tombstone: Tombstone) -> None:
        """Remove a tombstone, and the pointer by which it was found."""
        # 1. pointer, 2. tombstone, by which a purge that was cut off finds both
        for each in (object_keys.pointer_key(tombstone.imageId), _key(tombstone)):
            await self._blobs.delete(each, action="remove a tombstone")

    async def begin(self, tombstone: Tombstone) -> None:
        """Write down that this one is to be put, and its image to be purged."""
        write = Write(_deletion_key(tombstone), orjson.dumps(tombstone.to_wire()))
        await self._blobs.put(write, action="begin a deletion")

    async def begun(
        self, *, refused: OnRefusal = raised
    ) -> AsyncGenerator[tuple[str, Tombstone | None]]:
        """Yield image ID and tombstone, None for a damaged one, of what is not `sent`.

        Parameters
        ----------
        refused : called with what cannot be read.
        """
        async with aclosing(
            self._blobs.walk(object_keys.DELETING, action="list deletions")
        ) as keys:
            async for key in keys:
                image_id, raw = object_keys.read_deletion_key(key), None
                try:
                    raw = await self._blobs.get(key, action="read a deletion")
                except StorageUnavailable as error:
                    await refused(key, error)
                if image_id is None or raw is None:  # sent meanwhile
                    continue
                tombstone = None
                with suppress(image_objects.DamagedMetadata):
                    tombstone = read_tombstone(key, raw, _deletion_key)
                yield image_id, tombstone

    async def sent(self, image_id: str) -> None:
        """Forget that a deletion began: Kafka knows, and has it done."""
        await self._blobs.delete(object_keys.deletion_key(image_id), action="end a deletion")

    async def put_purge(self, purge: TenantPurge) -> None:
        write = Write(object_keys.purge_key(purge.tenantId), orjson.dumps(purge.to_wire()))
        await self._blobs.put(write, action="store a purge")

    async def replace_purge(self, purge: TenantPurge, *, known: TenantPurge) -> bool:
        """Replace what is written of a purge if that is at the stage of `known`.

        Returns
        -------
        False where another worker has brought it further, or it is another purge by now.
        """
        key = object_keys.purge_key(purge.tenantId)
        write = Write(key, orjson.dumps(purge.to_wire()))
        while (raw := await self._blobs.get(key, action="read a purge")) is not None:
            if raw == write.source:  # also where the answer of a write that was done got lost
                return True
            if not _is_at_stage(_read_purge(key, raw), known):
                return False
            # Another worker may have noted how far it is; once more then.
            if await self._blobs.swap(write, old=raw, action="store a purge"):
                return True
        return False

    async def mark_purged(self, purge: TenantPurge, image_id: str) -> None:
        """Write down that a purge deletes an image; written twice, it is one image still."""
        ms = object_keys.epoch_ms(purge.requestedAt)
        key = object_keys.purged_key(purge.tenantId, ms=ms, image_id=image_id)
        await self._blobs.put(Write(key, b"{}"), action="count a purged image")

    async def unmark_purged(self, purge: TenantPurge, image_id: str) -> None:
        """Take `mark_purged` back."""
        ms = object_keys.epoch_ms(purge.requestedAt)
        key = object_keys.purged_key(purge.tenantId, ms=ms, image_id=image_id)
        await self._blobs.delete(key, action="count a purged image")

    async def count_purged(self, purge: TenantPurge) -> int:
        """Return how many images a purge has deleted, whoever did it."""
        folder = object_keys.purged_folder(
            purge.tenantId, ms=object_keys.epoch_ms(purge.requestedAt)
        )
        async with aclosing(self._blobs.walk(folder, action="count purged images")) as keys:
            return sum([1 async for _ in keys])

    async def forget_purged(self, *, tenant: str) -> None:
        """Remove what `mark_purged` wrote, of this purge of the tenant and of earlier ones."""
        folder = object_keys.purging_folder(tenant)
        async with aclosing(self._blobs.walk(folder, action="end a purge")) as keys:
            async for key in keys:
                await self._blobs.delete(key, action="end a purge")
        await self._blobs.prune(folder, action="end a purge")

    async def find_purge(self, *, tenant: str) -> TenantPurge | None:
        """Return the tenant's last purge, or None if there was none.

        Raises
        ------
        DamagedMetadata
            What is known of it cannot be read.
        """
        raw = await self._blobs.get(object_keys.purge_key(tenant), action="read a purge")
        return None if raw is None else _read_purge(object_keys.purge_key(tenant), raw)

    async def purged_tenants(self) -> set[str]:
        """Return every tenant of which a purge is known, under way or at its end."""
        keys = await self._blobs.children(object_keys.PURGES, action="list purges")
        return {tenant for key in keys if (tenant := object_keys.read_purge_key(key)) is not None}

    async def _read(self, key: str) -> Tombstone | None:
        raw = await self._blobs.get(key, action="read a tombstone")
        if raw is not None:
            with suppress(image_objects.DamagedMetadata):
                return read_tombstone(key, raw)
        return None


def _read_purge(key: str, raw: bytes) -> TenantPurge:
    with image_objects.reading("a purge", key):
        purge = TenantPurge.from_wire(orjson.loads(raw))
        object_keys.epoch_ms(purge.requestedAt)
        return purge


def _is_at_stage(found: TenantPurge, known: TenantPurge) -> bool:
    return (found.requestedAt, found.emptiedAt, found.completedAt) == (
        known.requestedAt,
        known.emptiedAt,
        known.completedAt,
    )


def _key(tombstone: Tombstone) -> str:
    ms = object_keys.epoch_ms(tombstone.uploadedAt)
    return object_keys.tombstone_key(tenant=tombstone.tenantId, image_id=tombstone.imageId, ms=ms)


def _deletion_key(tombstone: Tombstone) -> str:
    return object_keys.deletion_key(tombstone.imageId)


def read_tombstone(key: str, raw: bytes, key_of: Callable[[Tombstone], str] = _key) -> Tombstone:
    """Return the tombstone at `key`, where `key_of` would put it.

    Raises
    ------
    DamagedMetadata
        It cannot be read, or is none of this image.
    """
    with image_objects.reading("a tombstone", key):
        tombstone = Tombstone.from_wire(orjson.loads(raw))
        object_keys.epoch_ms(tombstone.requestedAt)
        if not 0 < tombstone.generation < _MAX_GENERATION:
            raise ValueError(f"no image has had {tombstone.generation} runs")
        for file in (tombstone.originalKey, tombstone.thumbnailKey):
            object_keys.check_key(tenant=tombstone.tenantId, key=file)
        if key_of(tombstone) != key:
            raise ValueError("it is of another image")
        return tombstone
