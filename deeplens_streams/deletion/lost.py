"""Deleting an image whose metadata object cannot be read, or is not there.

Its tombstone says what is known otherwise: by its key, its row, its original and its vectors.
"""

import hashlib

from deeplens_streams.services import Services
from deeplens_streams.storage import layout
from models.deletion import Tombstone
from models.events import derived_id, utc_now
from models.status import ImageRow

#: Any will do where there is no original, since there is none to be removed.
_NO_FORMAT = "JPEG"


async def find_original(services: Services, *, tenant: str, image_id: str, ms: int) -> str | None:
    """Return the key of the original of an image that was uploaded then, or None."""
    # Several formats share an extension.
    keys = dict.fromkeys(
        layout.original_key(
            tenant=tenant, image_id=image_id, uploaded_at=layout.time_of(ms), format=name
        )
        for name in layout.EXTENSIONS
    )
    for key in keys:
        if await services.inventory.has(key):
            return key
    return None


async def models_of(services: Services, *, tenant: str, row: ImageRow | None) -> list[str]:
    """Return every model of whom an image may have a vector."""
    known = [*(row.models if row is not None else []), services.model.name]
    if services.vectors is not None:
        known += await services.vectors.models_of(tenant=tenant)
    return sorted(set(known))


async def tombstone_of(
    services: Services, *, tenant: str, image_id: str, ms: int, row: ImageRow | None
) -> Tombstone:
    """Return the tombstone of an image of which no metadata object tells."""
    uploaded_at = layout.time_of(ms)
    original = await find_original(services, tenant=tenant, image_id=image_id, ms=ms)
    return Tombstone(
        imageId=image_id,
        tenantId=tenant,
        correlationId=row.correlationId if row else derived_id("lost", image_id),
        uploadedAt=uploaded_at,
        requestedAt=utc_now(),
        originalKey=original
        or layout.original_key(
            tenant=tenant, image_id=image_id, uploaded_at=uploaded_at, format=_NO_FORMAT
        ),
        thumbnailKey=layout.thumbnail_key(
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
    digest = hashlib.sha256()
    async for chunk in services.storage.stream(tenant=tenant, key=original):
        digest.update(chunk)
    return digest.hexdigest()
