"""``/api/v1/admin/tenants/{tenantId}/keys`` and ``/api/v1/admin/keys``: who may do what."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.errors import BadRequest, KeyEnded, KeyNotFound, TenantNotFound
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.tenancy import api_keys
from deeplens_streams.timestamps import parse_time
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.context import WebContext
from deeplens_streams.web.forms.json_body import allow_only, line, read_body, text, whole
from deeplens_streams.web.middleware import admin_log
from deeplens_streams.web.responses import Handler, json_answer, success
from models.events import utc_now, wire_time
from models.tenants import SYSTEM, ApiKey, ChangeKind, Scope, TenantChangeData

SYSTEM_SCOPES: Final = tuple(scope.value for scope in Scope)
#: Seconds that the old key of a rotation goes on working.
_OVERLAP_S: Final = 86_400
MAX_OVERLAP_S: Final = 90 * 86_400
MAX_NAME: Final = 100


async def listing(request: web.Request) -> web.Response:
    """Answer what is known of a tenant's keys; none of them can be shown again."""
    context, owner = request.app[CONTEXT], await _owner(request)
    row = context.registry.find(owner)
    keys = [shown(key) for key in row.keys] if row is not None else []
    return json_answer({**success(models.Keys), "tenantId": _name(owner), "keys": keys})


async def create(request: web.Request) -> web.Response:
    """Make a key; the answer is the only place that it is ever in."""
    context, owner = request.app[CONTEXT], await _owner(request)
    body = await read_body(request)
    allow_only(body, ("name", "scopes", "expiresAt"))
    name, scopes = line(body, "name", most=MAX_NAME), _scopes(body.get("scopes"), owner)
    expires_at = _expiry(text(body, "expiresAt"))
    await admin_log.about(request, scopes=scopes, expiresAt=expires_at)
    key, made = await api_keys.issue(
        context.registry, owner, name=name, scopes=scopes, expires_at=expires_at
    )
    admin_log.came_of(request, keyId=made.keyId)
    return _made(owner, key, made, "Keep this key; it is not shown again.")


async def rotate(request: web.Request) -> web.Response:
    """Make a key like another that works, which ends after ``overlapSeconds``."""
    context, owner = request.app[CONTEXT], await _owner(request)
    old = _find(context, owner, request.match_info["key_id"])
    if (ended := old.ended_at(utc_now())) is not None:
        raise KeyEnded(f"This key ended at {ended}; make a new one.")
    body = await read_body(request)
    allow_only(body, ("overlapSeconds",))
    overlap = whole(body, "overlapSeconds", low=0, high=MAX_OVERLAP_S)
    ends = datetime.now(UTC) + timedelta(seconds=_OVERLAP_S if overlap is None else overlap)
    await admin_log.about(request, scopes=old.scopes, oldKeyEndsAt=wire_time(ends))
    key, made = await api_keys.issue(
        context.registry, owner, name=old.name, scopes=old.scopes, expires_at=old.expiresAt
    )
    admin_log.came_of(request, keyId=made.keyId)
    await _expire(context, owner, old, until=wire_time(ends))
    message = f"The old key ends at {wire_time(ends)}; this one is shown once."
    return _made(owner, key, made, message)


async def revoke(request: web.Request) -> web.Response:
    """End a key at once."""
    context, owner = request.app[CONTEXT], await _owner(request)
    key = _find(context, owner, request.match_info["key_id"])
    await _expire(context, owner, key, until=None)
    ended = _find(context, owner, key.keyId)
    answer = {
        **success(models.KeyAnswer),
        "message": "The key is revoked.",
        "tenantId": _name(owner),
        "key": shown(ended),
    }
    return json_answer(answer)


def shown(key: ApiKey) -> dict[str, Any]:
    """Return what may be seen of a key: all but its hash."""
    return {name: value for name, value in key.known_fields().items() if name != "sha256"}


async def _owner(request: web.Request) -> str:
    """Return the tenant of the address, or the system for an address that names none."""
    context = request.app[CONTEXT]
    await context.registry.ready()
    if "tenant_id" not in request.match_info:
        return SYSTEM
    tenant = check_tenant_id(request.match_info["tenant_id"])
    if context.registry.find(tenant) is None:
        raise TenantNotFound
    return tenant


def _find(context: WebContext, owner: str, key_id: str) -> ApiKey:
    row = context.registry.find(owner)
    found = next((key for key in (row.keys if row else ()) if key.keyId == key_id), None)
    if found is None:
        raise KeyNotFound
    return found


async def _expire(context: WebContext, owner: str, key: ApiKey, *, until: str | None) -> None:
    data = TenantChangeData(kind=ChangeKind.EXPIRE_KEY.value, keyId=key.keyId, until=until)
    await context.registry.change(owner, data)


def _made(owner: str, key: str, made: ApiKey, message: str) -> web.Response:
    answer = {
        **success(models.KeyAnswer),
        "message": message,
        "tenantId": _name(owner),
        "key": shown(made),
        "apiKey": key,
    }
    return json_answer(answer, status=201)


def _name(owner: str) -> str | None:
    return None if owner == SYSTEM else owner


def _scopes(given: Any, owner: str) -> list[str]:
    known = SYSTEM_SCOPES if owner == SYSTEM else api_keys.TENANT_SCOPES
    if given is None:
        return list(known)
    if not isinstance(given, list) or not given or not all(each in known for each in given):
        raise BadRequest(f"scopes is a list of some of {', '.join(known)}.")
    return [scope for scope in known if scope in given]


def _expiry(given: str | None) -> str | None:
    if given is None:
        return None
    moment = parse_time(given)
    if moment is None or moment <= datetime.now(UTC):
        raise BadRequest("expiresAt is a time to come, such as 2030-01-31T12:00:00Z.")
    return wire_time(moment)


def _of_operators(handler: Handler) -> Handler:
    """Return the same for the keys that belong to no tenant: an address of its own."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    return handle


#: Listing, making, revoking and rotating keys of a tenant, and those of operators.
OF_TENANTS: Final = (listing, create, revoke, rotate)
OF_OPERATORS: Final = tuple(_of_operators(handler) for handler in OF_TENANTS)
