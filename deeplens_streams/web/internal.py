"""What workers ask each other: rows that this one holds. It never asks on."""

from typing import Any, Final

import orjson
from aiohttp import web

from deeplens_streams.errors import BadRequest, ImageNotFound
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.web.answers import json_answer
from deeplens_streams.web.keys import CONTEXT

#: IDs of one question, at the most.
MAX_IDS: Final = 1000

ROW_BLANK: Final[dict[str, Any]] = {
    "success": False,
    "message": None,
    "row": None,
    "errorCode": None,
}
ROWS_BLANK: Final[dict[str, Any]] = {
    "success": False,
    "message": None,
    "rows": {},
    "errorCode": None,
}


async def row(request: web.Request) -> web.Response:
    found = request.app[CONTEXT].rows.local_row(check_image_id(request.match_info["image_id"]))
    if found is None:
        raise ImageNotFound("This worker holds no row of this image.")
    return json_answer({**ROW_BLANK, "success": True, "row": found.to_wire()})


async def rows(request: web.Request) -> web.Response:
    source = request.app[CONTEXT].rows
    found = {each: source.local_row(each) for each in await _asked_ids(request)}
    held = {each: row.to_wire() for each, row in found.items() if row is not None}
    return json_answer({**ROWS_BLANK, "success": True, "rows": held})


async def _asked_ids(request: web.Request) -> list[str]:
    try:
        body = orjson.loads(await request.read())
        ids = body["ids"]
        if not isinstance(ids, list) or len(ids) > MAX_IDS:
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise BadRequest(f"Send a JSON object with up to {MAX_IDS} IDs: {{ids: [...]}}.") from None
    return [check_image_id(each) for each in ids]
