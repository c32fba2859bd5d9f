"""What operators do is written down before it is done; ``/api/v1/admin/log`` shows it."""

from typing import Any, Final

import structlog
from aiohttp import web

from deeplens_streams.errors import DeepLensError
from deeplens_streams.web.access import CALLER, Route, route_of
from deeplens_streams.web.answers import Handler, json_answer, request_id
from deeplens_streams.web.fields import whole_number
from deeplens_streams.web.keys import CONTEXT
from models.tenants import Scope

log = structlog.get_logger()

BLANK: Final[dict[str, Any]] = {
    "success": False,
    "message": None,
    "actions": [],
    "nextCursor": None,
    "errorCode": None,
}


async def listing(request: web.Request) -> web.Response:
    """Answer what operators did, newest first."""
    query = request.query
    limit = whole_number(query.get("limit"), "limit", default=50, low=1, high=200)
    shelf = request.app[CONTEXT].services.actions
    page = await shelf.page(limit=limit, cursor=query.get("cursor") or None)
    answer = {
        **BLANK,
        "success": True,
        "actions": [each.to_wire() for each in page.actions],
        "nextCursor": page.cursor,
    }
    return json_answer(answer)


def changes_something(route: Route) -> bool:
    return route.scope == Scope.ADMIN and route.method != "GET"


@web.middleware
async def write_down(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Have the log say what an operator is about to do, and then how it ended.

    Raises
    ------
    StorageUnavailable
        It cannot be written down, so it is not done.
    """
    route = route_of(request)
    if route is None or not changes_something(route):
        return await handler(request)
    shelf = request.app[CONTEXT].services.actions
    entry = await shelf.begin(
        key_id=request[CALLER].key_id,
        action=f"{route.method} {route.path}",
        path=request.path_qs[:500],
        request_id=request_id(request),
    )
    status = 500
    try:
        response = await handler(request)
        status = response.status
        return response
    except DeepLensError as error:
        status = error.http_status
        raise
    finally:
        log.info("admin action", action=entry.action, key_id=entry.keyId, status=status)
        try:
            await shelf.end(entry, status)
        except DeepLensError as error:
            log.warning("the admin log lacks an answer", code=error.code)
