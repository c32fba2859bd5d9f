"""The status table for people: this worker's rows page by page, and any row by its ID."""

from typing import Any, Final

from aiohttp import web

from deeplens_streams.errors import ImageNotFound
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.web.answers import json_answer
from deeplens_streams.web.fields import whole_number
from deeplens_streams.web.keys import CONTEXT

NAME: Final = "image_status"

PAGE_BLANK: Final[dict[str, Any]] = {
    "success": False,
    "message": None,
    "table": NAME,
    "worker": None,
    "rows": [],
    "nextAfter": None,
    "errorCode": None,
}
ROW_BLANK: Final[dict[str, Any]] = {
    "success": False,
    "message": None,
    "table": NAME,
    "row": None,
    "errorCode": None,
}


async def page(request: web.Request) -> web.Response:
    """Answer some of this worker's rows, in the table's order."""
    context, query = request.app[CONTEXT], request.query
    limit = whole_number(query.get("limit"), "limit", default=50, low=1, high=200)
    after = query.get("after")
    rows, next_after = context.rows.local_page(
        limit=limit, after=check_image_id(after) if after else None
    )
    answer = {
        **PAGE_BLANK,
        "success": True,
        "worker": context.services.settings.canonical_url,
        "rows": [row.to_wire() for row in rows],
        "nextAfter": next_after,
    }
    return json_answer(answer)


async def row(request: web.Request) -> web.Response:
    """Answer one row, whichever worker holds it."""
    found = await request.app[CONTEXT].rows.row(check_image_id(request.match_info["image_id"]))
    if found is None:
        raise ImageNotFound("The status table has no row of this image.")
    return json_answer({**ROW_BLANK, "success": True, "row": found.to_wire()})
