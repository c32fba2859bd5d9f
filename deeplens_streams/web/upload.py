"""``POST /api/v1/images/upload``: spool, check, store, answer."""

import time
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiohttp import web

from deeplens_streams.errors import BadRequest, DeepLensError
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.features.pictures import PictureHeader, inspect
from deeplens_streams.identifiers import check_tenant_id, new_image_id
from deeplens_streams.storage.base import ImageStorage
from deeplens_streams.web import fields, links
from deeplens_streams.web.answers import json_answer
from deeplens_streams.web.context import WebContext
from deeplens_streams.web.intake import accept
from deeplens_streams.web.keys import CONTEXT, ESTIMATES, SPOOL
from deeplens_streams.web.metrics import UPLOAD_SECONDS, UPLOADED_BYTES, UPLOADS
from deeplens_streams.web.multipart import Form, read_form
from deeplens_streams.web.spool import SpooledFile
from models.events import PictureFacts, ProcessingOptions, new_event_id, utc_now
from models.images import StoredImage
from models.status import ImageState

log = structlog.get_logger()

FILE_FIELD: Final = "file"

BLANK: Final[dict[str, Any]] = {
    "success": False,
    "imageId": None,
    "status": None,
    "message": None,
    "uploadTimeMs": None,
    "estimatedProcessingTimeSeconds": None,
    "statusCheckUrl": None,
    "webSocketUrl": None,
    "timestamp": None,
    "processingOptions": None,
    "duplicateOf": None,
    "errorCode": None,
}


async def upload(request: web.Request) -> web.Response:
    """Answer 202 when the picture, its metadata and its event are durable."""
    started = time.perf_counter()
    try:
        image = await _take(request)
    except DeepLensError as error:
        UPLOADS.labels(error.code).inc()
        raise
    took = time.perf_counter() - started
    UPLOADS.labels("accepted").inc()
    UPLOAD_SECONDS.observe(took)
    UPLOADED_BYTES.inc(image.fileSize)
    log.info(
        "upload accepted",
        image_id=image.imageId,
        tenant=image.tenantId,
        correlation_id=image.correlationId,
        bytes=image.fileSize,
        format=image.metadata.format,
        took_ms=round(took * 1000, 1),
    )
    answer = {
        **BLANK,
        "success": True,
        "imageId": image.imageId,
        "status": ImageState.UPLOADED,
        "message": "The picture is stored and waits for processing.",
        "uploadTimeMs": round(took * 1000, 3),
        "estimatedProcessingTimeSeconds": request.app[ESTIMATES].total(),
        "statusCheckUrl": links.status_url(image.imageId),
        "webSocketUrl": links.socket_url(image.imageId),
        "timestamp": image.uploadedAt,
        "processingOptions": image.processingOptions.to_wire(),
    }
    return json_answer(answer, status=202)


async def _take(request: web.Request) -> StoredImage:
    """Read, check and store what the request brings."""
    context, spool = request.app[CONTEXT], request.app[SPOOL]
    settings = context.services.settings
    async with spool.open() as file:
        form = await read_form(
            request, file_field=FILE_FIELD, into=file, max_bytes=settings.max_upload_bytes
        )
        wishes = _check(form, context.services.model)
        _need_file(form, file, FILE_FIELD)
        checksum, header = await file.finish(
            lambda content: inspect(content, max_pixels=settings.max_pixels)
        )
        image = _describe(
            form=form,
            wishes=wishes,
            header=header,
            size=file.size,
            checksum=checksum,
            storage=context.services.storage,
        )
        structlog.contextvars.bind_contextvars(
            correlation_id=image.correlationId, tenant=image.tenantId, image_id=image.imageId
        )
        await _accept(image, file, context)
        return image


async def _accept(image: StoredImage, file: SpooledFile, context: WebContext) -> None:
    await accept(
        image,
        source=file.content,
        storage=context.services.storage,
        publish=context.publish_upload,
    )


def _need_file(form: Form, file: SpooledFile, name: str) -> None:
    if not form.has_file:
        raise BadRequest(f"The form has no picture; send one in the field {name!r}.")
    if file.size == 0:
        raise BadRequest(f"The picture in the field {name!r} is empty.")


@dataclass(frozen=True, slots=True)
class _Wishes:
    """The form's fields, checked."""

    tenant: str
    uploaded_by: str | None
    tags: dict[str, str]
    options: ProcessingOptions


def _check(form: Form, known: ModelSpec) -> _Wishes:
    return _Wishes(
        tenant=check_tenant_id(form.one("tenantId")),
        uploaded_by=fields.plain_text(
            form.one("uploadedBy"), "uploadedBy", limit=fields.MAX_UPLOADED_BY
        ),
        tags=fields.tags(form),
        options=fields.processing_options(form, known),
    )


def _describe(
    *,
    form: Form,
    wishes: _Wishes,
    header: PictureHeader,
    size: int,
    checksum: str,
    storage: ImageStorage,
) -> StoredImage:
    """Return the metadata object of a picture that passed every check."""
    image_id, uploaded_at = new_image_id(), utc_now()
    file_name = fields.safe_file_name(form.file_name or "")
    return StoredImage(
        imageId=image_id,
        tenantId=wishes.tenant,
        correlationId=new_event_id(),
        fileName=file_name,
        originalKey=storage.original_key(
            tenant=wishes.tenant,
            image_id=image_id,
            uploaded_at=uploaded_at,
            format=header.format,
        ),
        thumbnailKey=storage.thumbnail_key(
            tenant=wishes.tenant, image_id=image_id, uploaded_at=uploaded_at
        ),
        fileSize=size,
        contentType=header.content_type,
        checksumSha256=checksum,
        uploadedAt=uploaded_at,
        metadata=PictureFacts(
            width=header.width,
            height=header.height,
            format=header.format,
            colorProfile=header.color_profile,
            originalFileName=file_name,
            exifData=header.exif,
        ),
        processingOptions=wishes.options,
        tags=wishes.tags,
        uploadedBy=wishes.uploaded_by,
    )
