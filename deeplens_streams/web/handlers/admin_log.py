"""``GET /api/v1/admin/log``: what operators did."""

from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.forms.page import PageQuery
from deeplens_streams.web.responses import json_answer, success


async def listing(request: web.Request) -> web.Response:
    """Answer what operators did, newest first."""
    asked = PageQuery.read(request.query)
    actions = request.app[CONTEXT].services.actions
    page = await actions.page(limit=asked.limit, cursor=asked.cursor)
    answer = {
        **success(models.AdminActions),
        "actions": [each.known_fields() for each in page.actions],
        "nextCursor": page.cursor,
    }
    return json_answer(answer)
