"""The tables for people and programs: which there are, their partitions, and any row."""

from typing import Any, Final

from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.errors import TableRowNotFound
from deeplens_streams.interactive_queries.sources import TableInfo
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.assets import is_for_people, tables_page
from deeplens_streams.web.forms.page import PageQuery
from deeplens_streams.web.forms.table_address import asked_after, asked_key, table_name
from deeplens_streams.web.responses import json_answer, success
from models.tables import PartitionState

_NOT_READ: Final = (
    PartitionState.MOVING,
    PartitionState.UNREACHABLE,
    PartitionState.RECOVERING,
)


async def listing(request: web.Request) -> web.Response:
    """Answer which tables there are."""
    if is_for_people(request):
        return tables_page(request)
    context = request.app[CONTEXT]
    answer = {
        **success(models.Tables),
        "tables": [_table(each) for each in context.tables.known()],
        "worker": context.services.settings.canonical_url,
    }
    return json_answer(answer)


async def page(request: web.Request) -> web.Response:
    """Answer a table's partitions and some of its rows, of every worker, in key order."""
    if is_for_people(request):
        return tables_page(request)
    context, query = request.app[CONTEXT], request.query
    name = table_name(request, context.tables)
    limit = PageQuery.read(query).limit
    found = await context.tables.page(name, limit=limit, after=asked_after(request, name))
    missing = [each.partition for each in found.partitions if each.state in _NOT_READ]
    answer = {
        **success(models.TablePage),
        "message": None
        if found.complete
        else f"Rows of the partitions {', '.join(map(str, missing))} are missing here.",
        "table": name,
        "worker": context.services.settings.canonical_url,
        "partitions": [each.to_wire() for each in found.partitions],
        "complete": found.complete,
        "keys": [each.key for each in found.entries],
        "rows": [each.value for each in found.entries],
        "nextAfter": found.next_after,
    }
    return json_answer(answer)


async def row(request: web.Request) -> web.Response:
    """Answer one row, whichever worker holds it."""
    if is_for_people(request):
        return tables_page(request)
    source = request.app[CONTEXT].tables
    name = table_name(request, source)
    found = await source.row(name, asked_key(name, request.match_info["key"]))
    if found is None:
        raise TableRowNotFound
    answer = {**success(models.TableRow), "table": name, "key": found.key, "row": found.value}
    return json_answer(answer)


def _table(info: TableInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "purpose": info.purpose,
        "partitions": info.partitions,
        "changelog": info.changelog,
        "valueType": info.value_type,
    }
