"""``GET /api/v1/images/{imageId}/status``: what is known of an image's way."""

from aiohttp import web

from deeplens_streams.errors import ImageNotFound
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.web.app_keys import CONTEXT, ESTIMATES
from deeplens_streams.web.lookup import find_row
from deeplens_streams.web.middleware.auth import AUTHENTICATOR, tenant_bound
from deeplens_streams.web.responses import json_answer
from deeplens_streams.web.status_object import status_object


async def status(request: web.Request) -> web.Response:
    image_id = check_image_id(request.match_info["image_id"])
    tenant = tenant_bound(request, request.query.get("tenantId"))
    context = request.app[CONTEXT]
    row = await find_row(context, image_id)
    if row is None or tenant not in (None, row.tenantId):
        raise ImageNotFound
    request.app[AUTHENTICATOR].check_owner(row.tenantId)
    return json_answer(status_object(row, request.app[ESTIMATES], context.feed.outages))
