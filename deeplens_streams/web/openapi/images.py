"""Uploading, looking at, searching and deleting pictures."""

from typing import Final

from deeplens_streams.client.models.json_schemas import BOOLEAN, IMAGE_ID, STRING, TENANT_ID, choice
from deeplens_streams.errors import (
    BacklogFull,
    BadRequest,
    ExtractorUnavailable,
    ImageNotFound,
    ImageNotSearchable,
    InvalidImageId,
    InvalidTenantId,
    NotFound,
    NothingToRetry,
    NotRetryable,
    OriginRefused,
    QuotaExceeded,
    RangeNotSatisfiable,
    RateLimited,
    RetryUnderWay,
    StorageFull,
    TenantNotFound,
    TooLarge,
    TooManyFrames,
    TooManyPixels,
    TooManyRequests,
    TooManyUploads,
    UndecodableImage,
    UnknownModel,
    UnsupportedFormat,
    UnsupportedKind,
    UploadTooSlow,
    UrlNotFetched,
    UrlRefused,
    VectorsUnavailable,
)
from deeplens_streams.web.handlers import (
    content,
    deletion,
    images,
    retry,
    search,
    status,
    status_socket,
)
from deeplens_streams.web.handlers import upload as uploading
from deeplens_streams.web.openapi import forms, parts
from deeplens_streams.web.openapi.operation import FORM, JSON, Answer, Body, Operation, Parameter
from models.status import ImageState

_TAG: Final = "images"
_PICTURE: Final = (
    *(TooLarge, TooManyPixels, TooManyFrames),
    *(UnsupportedFormat, UnsupportedKind, UndecodableImage),
)


def _bytes(description: str, media_type: str) -> Answer:
    return Answer(
        description=description, schemas={media_type: {"type": "string", "format": "binary"}}
    )


_UNCHANGED: Final = Answer(description="The client has these bytes (`If-None-Match`).")

OPERATIONS: Final = (
    Operation(
        handler=uploading.upload,
        name="uploadImage",
        tag=_TAG,
        summary="Upload a picture",
        details="Answers when its bytes, its metadata and its event are durable. For bytes that "
        "the tenant already has, `duplicateOf` names the first image, and nothing is stored.",
        body=Body(media_type=FORM, schema=forms.UPLOAD),
        statuses=(202,),
        errors=(
            *(BadRequest, InvalidTenantId, TenantNotFound, UnknownModel),
            *(BacklogFull, TooManyUploads, UploadTooSlow, QuotaExceeded, RateLimited),
            *(UrlRefused, UrlNotFetched),
            *_PICTURE,
            *parts.WRITES,
            *parts.ROWS,
        ),
    ),
    Operation(
        handler=search.search,
        name="searchImages",
        tag="search",
        summary="Find what looks like a picture",
        body=Body(media_type=FORM, schema=forms.SEARCH),
        errors=(
            BadRequest,
            InvalidTenantId,
            InvalidImageId,
            UnknownModel,
            TenantNotFound,
            ImageNotFound,
            ImageNotSearchable,
            *(TooManyUploads, TooManyRequests, UploadTooSlow, RateLimited),
            *_PICTURE,
            *parts.STORAGE,
            StorageFull,
            VectorsUnavailable,
            ExtractorUnavailable,
        ),
    ),
    Operation(
        handler=images.listing,
        name="listImages",
        tag=_TAG,
        summary="List a tenant's pictures, newest first",
        parameters=(
            Parameter(
                name="tenantId",
                schema=TENANT_ID,
                description="Whose; needed where the key names none.",
            ),
            parts.LIMIT,
            parts.CONTINUE,
            Parameter(
                name="status",
                schema=choice(*ImageState),
                description="Only those that have it now; a page may then be short.",
            ),
        ),
        errors=(BadRequest, InvalidTenantId, TenantNotFound, *parts.STORAGE, *parts.ROWS),
    ),
    Operation(
        handler=images.metadata,
        name="getImage",
        tag=_TAG,
        summary="What is known of a picture",
        parameters=(parts.IN_PATH, parts.OF_TENANT),
        errors=parts.ONE_IMAGE,
    ),
    Operation(
        handler=deletion.delete,
        name="deleteImage",
        tag=_TAG,
        summary="Delete a picture, or ask how far its deletion is",
        details="200 when nothing is left of it, 202 while something is.",
        parameters=(parts.IN_PATH, parts.OF_TENANT),
        statuses=(200, 202),
        errors=(*parts.ONE_IMAGE, StorageFull),
    ),
    Operation(
        handler=status.status,
        name="getImageStatus",
        tag=_TAG,
        summary="Where a picture is on its way",
        parameters=(parts.IN_PATH, parts.OF_TENANT),
        errors=(*parts.ONE_IMAGE, *parts.ROWS),
    ),
    Operation(
        handler=content.content,
        name="getImageContent",
        tag=_TAG,
        summary="A picture's bytes as they were uploaded",
        parameters=(
            parts.IN_PATH,
            parts.OF_TENANT,
            Parameter(
                name="Range", schema=STRING, place="header", description="One range of bytes."
            ),
        ),
        statuses=(),
        answers={
            200: _bytes("The whole picture.", "image/*"),
            206: _bytes("The part that was asked for.", "image/*"),
            304: _UNCHANGED,
        },
        errors=(*parts.ONE_IMAGE, NotFound, RangeNotSatisfiable, TooManyRequests),
    ),
    Operation(
        handler=content.thumbnail,
        name="getImageThumbnail",
        tag=_TAG,
        summary="A small JPEG of a picture",
        parameters=(parts.IN_PATH, parts.OF_TENANT),
        statuses=(),
        answers={200: _bytes("The thumbnail.", "image/jpeg"), 304: _UNCHANGED},
        errors=(*parts.ONE_IMAGE, content.ThumbnailNotFound),
    ),
    Operation(
        handler=retry.retry,
        name="retryImage",
        tag=_TAG,
        summary="Try a picture's failed steps once more",
        parameters=(parts.IN_PATH, parts.OF_TENANT),
        body=Body(
            media_type=JSON,
            schema={"type": "object", "properties": {"force": BOOLEAN}},
            required=False,
        ),
        statuses=(202,),
        errors=(
            *parts.ONE_IMAGE,
            *parts.JSON_BODY,
            NothingToRetry,
            RetryUnderWay,
            RetryUnderWay,
            NotRetryable,
            *parts.WRITES,
            *parts.ROWS,
        ),
    ),
    Operation(
        handler=status_socket.processing_status,
        name="followImage",
        tag=_TAG,
        summary="Follow a picture over a websocket",
        details="Each message is the object of `getImageStatus`: at once, and at every change. "
        "Closes with 1000 at the picture's end, 4400 for what is no image ID, 4404 for an unknown "
        "one, 4401 for a key that is not valid, or no longer, 4403 for one that may not do this, "
        "or whose tenant is suspended.",
        parameters=(
            Parameter(name="imageId", schema=IMAGE_ID, description="Which.", required=True),
            parts.OF_TENANT,
        ),
        statuses=(),
        answers={101: Answer(description="The websocket is open.")},
        errors=(BadRequest, OriginRefused, TooManyRequests),
    ),
)
