"""``/api/v1/admin/trash``: what repairs took away: listing, restoring, emptying."""

from typing import Any, Final

from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.deletion.trash import before_ms, restore
from deeplens_streams.deletion.unremovable import Unremovable
from deeplens_streams.errors import BadRequest, NotFound
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.storage.trash import Reason
from deeplens_streams.storage.trash_entries import TrashEntry
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.forms.fields import truth, whole_number
from deeplens_streams.web.forms.page import PageQuery
from deeplens_streams.web.middleware.admin_log import about, came_of
from deeplens_streams.web.responses import json_answer, request_id, success

#: Things that one request removes, at the most; then it says that there is more.
MAX_REMOVED: Final = 1000


class TrashNotFound(NotFound):
    """Nothing in the trash has this ID."""

    code = "TRASH_NOT_FOUND"


async def listing(request: web.Request) -> web.Response:
    """Answer what is kept of a tenant, or of all."""
    query = request.query
    tenant = query.get("tenantId")
    if tenant is not None:
        check_tenant_id(tenant)
    asked = PageQuery.read(query)
    page = await request.app[CONTEXT].services.trash.page(
        tenant=tenant,
        limit=asked.limit,
        cursor=asked.cursor,
    )
    entries = [_shown(entry) for entry in page.entries]
    return json_answer({**success(models.TrashPage), "entries": entries, "nextCursor": page.cursor})


async def bring_back(request: web.Request) -> web.Response:
    """Restore one thing to where it was."""
    services = request.app[CONTEXT].services
    replace = truth(request.query.get("replace"), "replace")
    entry = await _found(request)
    await about(request, trash=entry.manifest.key, tenantId=entry.manifest.tenantId)
    why = Reason("something was restored to its place", request_id(request))
    await restore(entry, services, replace=replace, why=why)
    message = "It is where it was."
    return json_answer({**success(models.TrashAnswer), "message": message, "entry": _shown(entry)})


async def remove(request: web.Request) -> web.Response:
    """Remove one thing for good."""
    entry = await _found(request)
    await about(request, trash=entry.manifest.key, tenantId=entry.manifest.tenantId)
    await request.app[CONTEXT].services.trash.remove(entry)
    return json_answer(
        {**success(models.TrashAnswer), "message": "It is gone.", "entry": _shown(entry)}
    )


async def empty(request: web.Request) -> web.Response:
    """Remove what has been there for so many days, of a tenant or of all; asked again, the rest."""
    query = request.query
    given, days = query.get("tenantId"), query.get("olderThanDays")
    if days is None:
        raise BadRequest("Say olderThanDays: how long things have to be in the trash; 0 is all.")
    tenant = None if given is None else check_tenant_id(given)
    older = whole_number(days, "olderThanDays", default=0, low=0, high=36_500)
    services = request.app[CONTEXT].services
    left = Unremovable(services.breakers, "trash")
    removed = await services.trash.empty(
        tenant=tenant, before_ms=before_ms(older) + 1, most=MAX_REMOVED, refused=left.refused
    )
    came_of(request, tenantId=tenant, removed=removed)
    answer = {"removed": removed, "more": removed == MAX_REMOVED, "notRemoved": left.count}
    message = f"{left.count} things stay, such as {left.first}" if left.count else None
    return json_answer({**success(models.TrashRemoved), "message": message, **answer})


async def _found(request: web.Request) -> TrashEntry:
    entry = await request.app[CONTEXT].services.trash.find(request.match_info["trash_id"])
    if entry is None:
        raise TrashNotFound
    return entry


def _shown(entry: TrashEntry) -> dict[str, Any]:
    return {"trashId": entry.entry_id, **entry.manifest.known_fields()}
