"""``GET /api/v1/images/{imageId}`` and the listing: what is known of pictures."""

from typing import Any, Final

from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.errors import BadRequest, DependencyUnavailable, RowMoving
from deeplens_streams.web import links
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.context import WebContext
from deeplens_streams.web.forms.page import PageQuery
from deeplens_streams.web.lookup import find_image
from deeplens_streams.web.middleware.auth import tenant_of
from deeplens_streams.web.responses import json_answer, success
from deeplens_streams.web.status_object import shown_state
from models.images import StoredImage
from models.status import ImageState

#: Images that one request with a status looks at; it goes on from the cursor.
MAX_WALK: Final = 1000
_WALK_PAGE: Final = 100


async def metadata(request: web.Request) -> web.Response:
    image = await find_image(request)
    states = await _states([image], request.app[CONTEXT])
    answer = {**success(models.ImageAnswer), **image_object(image, states.get(image.imageId))}
    return json_answer(answer)


def image_object(image: StoredImage, state: str | None) -> dict[str, Any]:
    """Return what clients may see of an image; `state` is None while nobody can tell."""
    return {
        "imageId": image.imageId,
        "tenantId": image.tenantId,
        "fileName": image.fileName,
        "contentType": image.contentType,
        "fileSize": image.fileSize,
        "checksumSha256": image.checksumSha256,
        "uploadedAt": image.uploadedAt,
        "uploadedBy": image.uploadedBy,
        "tags": image.tags,
        "metadata": image.metadata.known_fields(),
        "processingOptions": image.processingOptions.known_fields(),
        "correlationId": image.correlationId,
        "status": state,
        "contentUrl": links.content_url(image.imageId),
        "thumbnailUrl": links.thumbnail_url(image.imageId)
        if image.processingOptions.generateThumbnail
        else None,
        "statusCheckUrl": links.status_url(image.imageId),
    }


async def listing(request: web.Request) -> web.Response:
    """Answer a tenant's images, newest first; with a status, those that have it now."""
    context, query = request.app[CONTEXT], request.query
    tenant = tenant_of(request, query.get("tenantId"))
    asked = PageQuery.read(query)
    wanted = _wanted_state(query.get("status"))
    if wanted is None:
        page = await context.services.storage.list_images(
            tenant=tenant, limit=asked.limit, cursor=asked.cursor
        )
        states = await _states(page.images, context)
        found = [image_object(image, states.get(image.imageId)) for image in page.images]
        after = page.cursor
    else:
        found, after = await _walk(context, tenant, wanted, asked.limit, asked.cursor)
    return json_answer({**success(models.ImagePage), "images": found, "nextCursor": after})


def _wanted_state(value: str | None) -> ImageState | None:
    if value is None:
        return None
    try:
        return ImageState(value)
    except ValueError:
        known = ", ".join(state.value for state in ImageState)
        raise BadRequest(f"The status is one of {known}.") from None


async def _walk(
    context: WebContext, tenant: str, wanted: ImageState, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Look through pages for images of one state; bounded, so it may return fewer than there are.

    Raises
    ------
    RowMoving
        Nobody can tell the state of some image: leaving it out would be a lie.
    """
    storage = context.services.storage
    found: list[dict[str, Any]] = []
    for _ in range(MAX_WALK // _WALK_PAGE):
        page = await storage.list_images(tenant=tenant, limit=_WALK_PAGE, cursor=cursor)
        states = await _states(page.images, context)
        if len(states) < len(page.images):
            raise RowMoving
        for position, image in enumerate(page.images, start=1):
            if states[image.imageId] != wanted:
                continue
            found.append(image_object(image, wanted))
            if len(found) == limit and position < len(page.images):
                return found, storage.cursor_after(image)
        cursor = page.cursor
        if cursor is None or len(found) == limit:
            break
    return found, cursor


async def _states(images: list[StoredImage], context: WebContext) -> dict[str, str]:
    """Return the state of each image; empty while the table cannot tell."""
    if not images:
        return {}
    try:
        rows = await context.rows.rows([image.imageId for image in images])
    except DependencyUnavailable:
        return {}
    return {
        image.imageId: shown_state(row) if (row := rows.get(image.imageId)) else ImageState.UPLOADED
        for image in images
    }
