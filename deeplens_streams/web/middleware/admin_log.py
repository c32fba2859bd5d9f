"""What operators do is written down before it is done; ``/api/v1/admin/log`` shows it.

A handler says what the address does not: `about` before it acts, `came_of` afterwards.
"""

from typing import Any, Final

import structlog
from aiohttp import web

from deeplens_streams.errors import DeepLensError
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.middleware.auth import (
    AUTHENTICATOR,
    CALLER,
    INTERNAL,
    Caller,
    Route,
    route_of,
)
from deeplens_streams.web.responses import Handler, as_ours, request_id
from models.admin import AdminAction
from models.tenants import Scope

log = structlog.get_logger()


#: Adding pictures and looking for them is every client's business, and as frequent.
_EVERYDAY: Final = frozenset({"/api/v1/images/upload", "/api/v1/images/search"})
#: What the log says of a request; none is there where it says nothing.
_ENTRY: Final[web.RequestKey[AdminAction]] = web.RequestKey("deeplens_admin_action", AdminAction)


async def about(request: web.Request, **subject: Any) -> None:
    """Have the log say whom or what is about to be changed: IDs and limits, never a key.

    Raises
    ------
    StorageUnavailable
        It cannot be written down, so it is not to be done.
    """
    if (entry := request.get(_ENTRY)) is not None:
        await request.app[CONTEXT].services.actions.tell(entry, subject)


def came_of(request: web.Request, **subject: Any) -> None:
    """Have the log say what there is now; it is written down with the answer."""
    if (entry := request.get(_ENTRY)) is not None:
        entry.subject = (entry.subject or {}) | subject


def is_operators(route: Route, caller: Caller, *, keys_on: bool) -> bool:
    """Tell whether a request changes something that a tenant could not, or another's picture."""
    if route.method == "GET" or route.scope in (None, INTERNAL):
        return False
    if route.scope == Scope.ADMIN:
        return True
    return keys_on and caller.tenant is None and route.path not in _EVERYDAY


@web.middleware
async def write_down(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Have the log say what an operator is about to do, and then how it ended.

    Raises
    ------
    StorageUnavailable
        It cannot be written down, so it is not done.
    """
    route = route_of(request)
    if route is None or not is_operators(
        route, request[CALLER], keys_on=request.app[AUTHENTICATOR].keys_on
    ):
        return await handler(request)
    actions = request.app[CONTEXT].services.actions
    entry = request[_ENTRY] = await actions.begin(
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
    except web.HTTPException as error:
        status = as_ours(error).http_status
        raise
    finally:
        log.info(
            "admin action",
            action=entry.action,
            key_id=entry.keyId,
            subject=entry.subject,
            status=status,
        )
        try:
            await actions.end(entry, status)
        except DeepLensError as error:
            log.warning("the admin log lacks an answer", code=error.code)
