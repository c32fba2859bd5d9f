"""What workers ask each other: rows that this one holds. It never asks on."""

from typing import Final

import orjson
from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.errors import BadRequest, TableRowNotFound
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.forms.json_body import read_raw
from deeplens_streams.web.forms.page import PageQuery
from deeplens_streams.web.forms.table_address import asked_after, asked_key, table_name
from deeplens_streams.web.responses import json_answer, success

#: IDs of one question, at the most.
MAX_IDS: Final = 1000


async def share(request: web.Request) -> web.Response:
    """Answer what this worker holds of a table."""
    source = request.app[CONTEXT].tables
    name = table_name(request, source)
    limit = PageQuery.read(request.query).limit
    found = await source.local_share(name, limit=limit, after=asked_after(request, name))
    return json_answer({**success(models.HeldShareAnswer), "share": found.to_wire()})


async def entry(request: web.Request) -> web.Response:
    """Answer a row of any table that this worker holds."""
    source = request.app[CONTEXT].tables
    name = table_name(request, source)
    found = source.local_row(name, asked_key(name, request.match_info["key"]))
    if found is None:
        raise TableRowNotFound("This worker holds no such row.")
    return json_answer({**success(models.HeldEntry), "key": found.key, "value": found.value})


async def rows(request: web.Request) -> web.Response:
    source = request.app[CONTEXT].rows
    found = {each: source.local_row(each) for each in await _asked_ids(request)}
    held = {each: row.to_wire() for each, row in found.items() if row is not None}
    return json_answer({**success(models.HeldRows), "rows": held})


async def _asked_ids(request: web.Request) -> list[str]:
    try:
        body = orjson.loads(await read_raw(request))
        ids = body["ids"]
        if not isinstance(ids, list) or len(ids) > MAX_IDS:
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise BadRequest(f"Send a JSON object with up to {MAX_IDS} IDs: {{ids: [...]}}.") from None
    return [check_image_id(each) for each in ids]
