"""Deleting an image whose metadata object cannot be read, or is not there.

Its tombstone says what is known otherwise: by its key, its row, its original and its vectors.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from deeplens_streams.services import Services
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata, Pointer
from deeplens_streams.storage.measured import measured
from models.deletion import Tombstone
from models.events import derived_id, utc_now
from models.status import ImageRow, ImageState

#: Any will do where there is no original, since there is none to be removed.
_NO_FORMAT = "JPEG"


async def models_of(services: Services, *, tenant: str, row: ImageRow | None) -> list[str]:
    """Return every model of whom an image may have a vector."""
    known = [*(row.models if row is not None else []), services.model.name]
    if services.vectors is not None:
        known += await services.vectors.models_of(tenant=tenant)
    return sorted(set(known))


async def find_lost(
    services: Services, image_id: str, *, tenant: str | None, row: ImageRow | None
) -> Pointer | None:
    """Return whose an image is that no metadata object tells of, and when it was uploaded.

    None where nothing of it is there, or nothing of the tenant's.

    Parameters
    ----------
    tenant : only this one's.
    """
    async with aclosing(_places(services, image_id, tenant, row)) as places:
        async for place in places:
            if tenant in (None, place.tenant) and await _has_parts(services, image_id, place, row):
                return place
    return None


async def _places(
    services: Services, image_id: str, tenant: str | None, row: ImageRow | None
) -> AsyncGenerator[Pointer]:
    """Yield where an image may be, as its parts say."""
    with suppress(DamagedMetadata):
        pointer = await services.inventory.pointer(image_id)
        if pointer is not None:
            yield pointer
    if row is not None:
        with suppress(ValueError):
            yield Pointer(row.tenantId, object_keys.epoch_ms(row.uploadedAt))
    vectors = services.vectors
    if tenant is not None and vectors is not None:
        for model in await models_of(services, tenant=tenant, row=None):
            point = await vectors.get_point(tenant=tenant, model=model, image_id=image_id)
            said = point.payload.get("uploadedAt") if point is not None else None
            if isinstance(said, str):
                with suppress(ValueError):
                    yield Pointer(tenant, object_keys.epoch_ms(said))


async def _has_parts(
    services: Services, image_id: str, place: Pointer, row: ImageRow | None
) -> bool:
    """Tell whether something of an image is there that was uploaded then."""
    if row is not None and row.tenantId == place.tenant and row.status != ImageState.DELETED:
        return True
    tenant, ms = place.tenant, place.ms
    for key in (
        object_keys.metadata_key(tenant=tenant, image_id=image_id, ms=ms),
        object_keys.tombstone_key(tenant=tenant, image_id=image_id, ms=ms),
    ):
        if await services.inventory.has(key):
            return True
    if await services.inventory.find_original(tenant=tenant, image_id=image_id, ms=ms) is not None:
        return True
    if services.vectors is not None:
        for model in await models_of(services, tenant=tenant, row=row):
            if await services.vectors.present([image_id], tenant=tenant, model=model):
                return True
    return False


async def tombstone_of(
    services: Services, *, tenant: str, image_id: str, ms: int, row: ImageRow | None
) -> Tombstone:
    """Return the tombstone of an image of which no metadata object tells."""
    uploaded_at = object_keys.time_of(ms)
    original = await services.inventory.find_original(tenant=tenant, image_id=image_id, ms=ms)
    return Tombstone(
        imageId=image_id,
        tenantId=tenant,
        correlationId=row.correlationId if row else derived_id("lost", image_id),
        uploadedAt=uploaded_at,
        requestedAt=utc_now(),
        originalKey=original
        or object_keys.original_key(
            tenant=tenant, image_id=image_id, uploaded_at=uploaded_at, format=_NO_FORMAT
        ),
        thumbnailKey=object_keys.thumbnail_key(
            tenant=tenant, image_id=image_id, uploaded_at=uploaded_at
        ),
        checksumSha256=await _checksum(services, tenant, original),
        models=await models_of(services, tenant=tenant, row=row),
        steps={},
        generation=row.generation if row else 1,
        fileSize=row.fileSize if row else None,
        lease=row.lease if row else None,
    )


async def _checksum(services: Services, tenant: str, original: str | None) -> str:
    """Return by which the image's claim is found; empty where nobody can tell."""
    if original is None:
        return ""
    return (await measured(services.storage.stream(tenant=tenant, key=original))).sha256
