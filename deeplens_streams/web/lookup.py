"""What an address names: an image, what is left of it, and its row."""

from aiohttp import web

from deeplens_streams.errors import ImageNotFound
from deeplens_streams.identifiers import bare_uuid, check_image_id
from deeplens_streams.imaging.formats import FORMATS
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.context import WebContext
from deeplens_streams.web.middleware.auth import AUTHENTICATOR, tenant_bound
from models.deletion import Tombstone
from models.events import PictureFacts, ProcessingOptions
from models.images import StoredImage
from models.status import (
    ImageRow,
    ImageState,
    Step,
    StepReport,
    StepStatus,
)

_UNKNOWN = "application/octet-stream"


async def find_image(request: web.Request) -> StoredImage:
    """Return the image of the address; one of another tenant than the request's is unknown."""
    image_id = check_image_id(request.match_info["image_id"])
    storage = request.app[CONTEXT].services.storage
    tenant = tenant_bound(request, request.query.get("tenantId"))
    if tenant is not None:
        image = await storage.get_metadata(tenant=tenant, image_id=image_id)
    else:
        image = await storage.find(image_id)
    if image is None:
        raise ImageNotFound
    request.app[AUTHENTICATOR].check_owner(image.tenantId)
    return image


async def find_shown(request: web.Request) -> StoredImage:
    """Return the image of the address as `find_image` does, or what its keys tell of it.

    Raises
    ------
    DamagedMetadata
        Nothing tells of it.
    """
    try:
        return await find_image(request)
    except DamagedMetadata:
        image = await _by_its_keys(request)
        if image is None:
            raise
        return image


async def _by_its_keys(request: web.Request) -> StoredImage | None:
    services = request.app[CONTEXT].services
    image_id = check_image_id(request.match_info["image_id"])
    pointer = await services.inventory.pointer(image_id)
    if pointer is None:
        return None
    tenant = pointer.tenant
    if tenant_bound(request, request.query.get("tenantId")) not in (None, tenant):
        raise ImageNotFound
    request.app[AUTHENTICATOR].check_owner(tenant)
    uploaded_at = object_keys.time_of(pointer.ms)
    original = await services.inventory.find_original(
        tenant=tenant, image_id=image_id, ms=pointer.ms
    )
    size = await services.storage.size(tenant=tenant, key=original) if original else None
    if original is None or size is None:
        return None
    suffix = original.rpartition(".")[2]
    return StoredImage(
        imageId=image_id,
        tenantId=tenant,
        correlationId="",
        fileName=f"{bare_uuid(image_id)}.{suffix}",
        originalKey=original,
        thumbnailKey=object_keys.thumbnail_key(
            tenant=tenant, image_id=image_id, uploaded_at=uploaded_at
        ),
        fileSize=size,
        contentType=_content_type(suffix),
        # An entity tag: the bytes of an ID never change.
        checksumSha256=f"{bare_uuid(image_id)}-{size}",
        uploadedAt=uploaded_at,
        metadata=PictureFacts(),
        processingOptions=ProcessingOptions(),
        tags={},
    )


def _content_type(suffix: str) -> str:
    return next((each.content_type for each in FORMATS if each.extension == f".{suffix}"), _UNKNOWN)


async def find_row(context: WebContext, image_id: str) -> ImageRow | None:
    """Return what is known of an image: its row, else what storage says of a fresh upload.

    Raises
    ------
    RowMoving
        There may be a row, and the worker that has it does not answer.
    """
    row = await context.rows.row(image_id)
    if row is None:
        stored = await context.services.storage.find(image_id)
        if stored is not None:
            return fresh_row(stored)
        tombstone = await context.services.tombstones.find(image_id)
        row = deleted_row(tombstone) if tombstone is not None else None
    return row


def fresh_row(image: StoredImage) -> ImageRow:
    """Return the row of an image of which no stage has reported yet."""
    options = image.processingOptions
    steps = []
    if not options.generateThumbnail:
        steps.append(StepReport(step=Step.THUMBNAIL_GENERATION, status=StepStatus.SKIPPED))
    return ImageRow(
        imageId=image.imageId,
        tenantId=image.tenantId,
        correlationId=image.correlationId,
        uploadedAt=image.uploadedAt,
        models=options.models or [],
        status=ImageState.UPLOADED.value,
        generation=1,
        steps=steps,
        lastUpdated=image.uploadedAt,
    )


def deleted_row(tombstone: Tombstone) -> ImageRow:
    """Return the row of a deleted image that the table does not know of."""
    return ImageRow(
        imageId=tombstone.imageId,
        tenantId=tombstone.tenantId,
        correlationId=tombstone.correlationId,
        uploadedAt=tombstone.uploadedAt,
        models=[],
        status=ImageState.DELETED.value,
        generation=1,
        steps=[],
        lastUpdated=tombstone.requestedAt,
    )
