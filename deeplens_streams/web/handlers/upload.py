"""``POST /api/v1/images/upload``: spool, check, store, answer."""

import time

import structlog
from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.errors import (
    BadRequest,
    DeepLensError,
    DependencyUnavailable,
)
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.imaging.header import PictureHeader, inspect
from deeplens_streams.ingest.acceptance import Accepted
from deeplens_streams.ingest.spool import SpooledFile
from deeplens_streams.storage.base import ImageStorage
from deeplens_streams.web import links
from deeplens_streams.web.app_keys import (
    ACCEPTANCE,
    ADMISSION,
    BODY_RATE,
    CONTEXT,
    ESTIMATES,
    FETCHER,
    QUOTAS,
    SPOOL,
)
from deeplens_streams.web.context import WebContext
from deeplens_streams.web.forms import fields
from deeplens_streams.web.forms.multipart import read_form
from deeplens_streams.web.forms.upload import FILE_FIELD, UploadForm
from deeplens_streams.web.metrics import UPLOAD_SECONDS, UPLOADED_BYTES, UPLOADS
from deeplens_streams.web.responses import is_gone, json_answer, success
from deeplens_streams.web.status_object import shown_state
from models.events import new_event_id, utc_now
from models.images import StoredImage
from models.status import ImageState

log = structlog.get_logger()


async def upload(request: web.Request) -> web.Response:
    """Answer 202 when the picture, its metadata and its event are durable."""
    started = time.perf_counter()
    try:
        # To its end: what waits for a thread, for room or for storage is taken in, too.
        with (
            request.app[ADMISSION].admit(request.content_length),
            request.app[BODY_RATE].acquire(request.remote),
        ):
            image, accepted = await _take(request)
    except DeepLensError as error:
        UPLOADS.labels(error.code).inc()
        raise
    except Exception as error:
        if not (isinstance(error, ConnectionError) and is_gone(request)):
            UPLOADS.labels(DeepLensError.code).inc()  # nobody foresaw it: answered with 500
        raise
    took, followed = time.perf_counter() - started, accepted.image
    is_new = accepted.duplicate_of is None
    UPLOADS.labels("accepted" if is_new else "duplicate").inc()
    UPLOAD_SECONDS.observe(took)
    if is_new:
        UPLOADED_BYTES.inc(image.fileSize)
    log.info(
        "upload accepted" if is_new else "upload is a duplicate",
        image_id=followed.imageId,
        tenant=followed.tenantId,
        correlation_id=followed.correlationId,
        bytes=image.fileSize,
        format=image.metadata.format,
        took_ms=round(took * 1000, 1),
    )
    answer = {
        **success(models.Upload),
        "imageId": followed.imageId,
        "status": ImageState.UPLOADED,
        "message": "The picture is stored and waits for processing.",
        "uploadTimeMs": round(took * 1000, 3),
        "estimatedProcessingTimeSeconds": request.app[ESTIMATES].total(),
        "statusCheckUrl": links.status_url(followed.imageId),
        "webSocketUrl": links.socket_url(followed.imageId),
        "timestamp": image.uploadedAt,
        "processingOptions": followed.processingOptions.known_fields(),
    }
    if not is_new:
        answer |= {
            "status": await _present_state(request.app[CONTEXT], followed),
            "message": f"This picture was uploaded before, as {followed.imageId}.",
            "estimatedProcessingTimeSeconds": None,
            "duplicateOf": accepted.duplicate_of,
        }
    return json_answer(answer, status=202)


async def _present_state(context: WebContext, image: StoredImage) -> str:
    try:
        row = await context.rows.row(image.imageId)
    except DependencyUnavailable:
        return ImageState.PROCESSING  # its row is moving, so it has one
    return shown_state(row) if row is not None else ImageState.UPLOADED


async def _take(request: web.Request) -> tuple[StoredImage, Accepted]:
    """Read, check and store what the request brings; return it, and as what it was accepted."""
    context, spool = request.app[CONTEXT], request.app[SPOOL]
    settings = context.services.settings
    async with spool.open() as file:
        parts = await read_form(
            request, file_field=FILE_FIELD, into=file, max_bytes=settings.max_upload_bytes
        )
        form = UploadForm.read(request, parts, model=context.services.model)
        await request.app[QUOTAS].rate(form.tenant)
        file_name = await _have_bytes(request, form, file)
        checksum, header = await file.finish(
            lambda content: inspect(content, max_pixels=settings.max_pixels, keep_gps=form.keep_gps)
        )
        image = _describe(
            form,
            file_name=fields.safe_file_name(file_name),
            header=header,
            size=file.size,
            checksum=checksum,
            storage=context.services.storage,
        )
        structlog.contextvars.bind_contextvars(
            correlation_id=image.correlationId, tenant=image.tenantId, image_id=image.imageId
        )
        return image, await request.app[ACCEPTANCE].accept(image, file.content)


async def _have_bytes(request: web.Request, form: UploadForm, file: SpooledFile) -> str:
    """See to it that `file` has the image, sent or fetched; return what it is called."""
    if form.url is not None:
        return await _import(request, form, form.url, file)
    if form.file_name is None:
        raise BadRequest(f"The form has no picture; send one in the field {FILE_FIELD!r}.")
    if file.size == 0:
        raise BadRequest(f"The picture in the field {FILE_FIELD!r} is empty.")
    return form.file_name


async def _import(request: web.Request, form: UploadForm, url: str, file: SpooledFile) -> str:
    """Fetch the picture at `url`; return its name."""
    settings = request.app[CONTEXT].services.settings
    if form.file_name is not None:
        raise BadRequest(f"Send either a picture in {FILE_FIELD!r} or its address in 'url'.")
    if not settings.url_import:
        raise BadRequest(f"This system fetches no addresses; send the picture in {FILE_FIELD!r}.")
    with request.app[BODY_RATE].reader(request.remote) as reader:
        return await request.app[FETCHER].fetch(url, reader, file)


def _describe(
    form: UploadForm,
    *,
    file_name: str,
    header: PictureHeader,
    size: int,
    checksum: str,
    storage: ImageStorage,
) -> StoredImage:
    """Return the metadata object of a picture that passed every check."""
    image_id, uploaded_at = new_image_id(), utc_now()
    return StoredImage(
        imageId=image_id,
        tenantId=form.tenant,
        correlationId=new_event_id(),
        fileName=file_name,
        originalKey=storage.original_key(
            tenant=form.tenant,
            image_id=image_id,
            uploaded_at=uploaded_at,
            format=header.format,
        ),
        thumbnailKey=storage.thumbnail_key(
            tenant=form.tenant, image_id=image_id, uploaded_at=uploaded_at
        ),
        fileSize=size,
        contentType=header.content_type,
        checksumSha256=checksum,
        uploadedAt=uploaded_at,
        metadata=header.facts(file_name),
        processingOptions=form.options,
        tags=form.tags,
        uploadedBy=form.uploaded_by,
    )
