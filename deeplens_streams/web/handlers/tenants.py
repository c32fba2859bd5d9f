"""``/api/v1/admin/tenants``: the registry of tenants, and ``/api/v1/usage`` for themselves."""

from typing import Any, Final

from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.errors import (
    BadRequest,
    TenantDeleting,
    TenantExists,
    TenantNotFound,
)
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.tenancy import api_keys, provisioning
from deeplens_streams.tenancy.api_keys import living
from deeplens_streams.web.app_keys import CONTEXT, QUOTAS
from deeplens_streams.web.context import WebContext
from deeplens_streams.web.forms.json_body import allow_only, read_body, whole
from deeplens_streams.web.forms.page import PageQuery
from deeplens_streams.web.middleware import admin_log
from deeplens_streams.web.middleware.auth import tenant_of
from deeplens_streams.web.responses import json_answer, success
from models.tenants import ChangeKind, Limits, Tenant, TenantChangeData, TenantState, Usage

LIMITS: Final = ("images", "bytes", "uploadsPerMinute", "searchesPerMinute", "collections")
#: What a number in JSON can be without losing digits.
MOST: Final = 2**53 - 1
_RETRY_AFTER_S: Final = 5


async def create(request: web.Request) -> web.Response:
    """Make a tenant with everything that it needs; asked again, go on where it was cut off.

    The answer has its first API key, which is shown this once.
    """
    context = request.app[CONTEXT]
    body = await read_body(request)
    allow_only(body, ("tenantId", "limits"))
    tenant = check_tenant_id(body.get("tenantId"))
    limits = _limits(body.get("limits"))
    await admin_log.about(request, tenantId=tenant, limits=limits.to_wire())
    await context.registry.ready()
    if context.registry.find(tenant) is None:
        data = TenantChangeData(kind=ChangeKind.CREATE.value, limits=limits)
        await context.registry.change(tenant, data)
    row = find(context, tenant)
    if row.provisioned:
        raise TenantExists(f"There is a tenant {tenant} already; its limits can be changed.")
    if row.state == TenantState.DELETING:
        raise TenantDeleting
    if limits.known_fields() != row.limits.known_fields() and body.get("limits"):
        # It was there from its first use, or half made with others.
        data = TenantChangeData(kind=ChangeKind.LIMIT.value, limits=limits)
        await context.registry.change(tenant, data)
    done = await provisioning.provision(context.services, context.registry, context.quotas, tenant)
    if done.api_key is not None:
        admin_log.came_of(request, keyId=api_keys.key_id(done.api_key))
    answer = {
        **models.TenantAnswer.blank(),
        "success": done.is_complete,
        "message": f"The tenant {tenant} is ready."
        if done.is_complete
        else f"The tenant {tenant} is not ready yet; the same request goes on from here.",
        "tenant": shown(context, find(context, tenant)),
        "steps": done.as_wire(),
        "apiKey": done.api_key,
        "errorCode": None if done.is_complete else done.error_code,
    }
    return _answered(answer, done, 201)


async def listing(request: web.Request) -> web.Response:
    """Answer tenants by ID."""
    context, query = request.app[CONTEXT], request.query
    await context.registry.ready()
    asked = PageQuery.read(query)
    limit, after = asked.limit, asked.cursor or ""
    rows = [row for row in context.registry.tenants() if row.tenantId > after]
    answer = {
        **success(models.TenantPage),
        "tenants": [shown(context, row) for row in rows[:limit]],
        "nextCursor": rows[limit - 1].tenantId if len(rows) > limit else None,
    }
    return json_answer(answer)


async def show(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    row = await asked(request)
    return json_answer({**success(models.TenantAnswer), "tenant": shown(context, row)})


async def check(request: web.Request) -> web.Response:
    """Look at everything that a tenant needs; 503 unless all of it is well."""
    context = request.app[CONTEXT]
    row = await asked(request)
    done = await provisioning.look(context.services, context.registry, row)
    answer = {
        **models.TenantAnswer.blank(),
        "success": done.is_complete,
        "message": "Everything that it needs answers."
        if done.is_complete
        else "Something that it needs is missing or away.",
        "tenant": shown(context, row),
        "steps": done.as_wire(),
        "errorCode": None if done.is_complete else done.error_code,
    }
    return _answered(answer, done, 200)


def _answered(answer: dict[str, Any], done: provisioning.Done, status: int) -> web.Response:
    if done.is_complete:
        return json_answer(answer, status=status)
    return json_answer(answer, status=503, headers={"Retry-After": str(_RETRY_AFTER_S)})


async def change(request: web.Request) -> web.Response:
    """Change a tenant's limits; those that are not named stay, null is the system's own."""
    row = await asked(request)
    body = await read_body(request)
    allow_only(body, ("limits",))
    named = _limits(body.get("limits"))
    given = body.get("limits") or {}
    limits = Limits(
        **{name: getattr(named if name in given else row.limits, name) for name in LIMITS}
    )
    data = TenantChangeData(kind=ChangeKind.LIMIT.value, limits=limits)
    await admin_log.about(request, limits=limits.to_wire())
    return await _changed(request, row, data, "Its limits are changed.")


async def suspend(request: web.Request) -> web.Response:
    """Have everything of a tenant refused until it is resumed; what is on its way goes on."""
    row = await asked(request)
    data = TenantChangeData(kind=ChangeKind.SUSPEND.value)
    return await _changed(request, row, data, "It is suspended.")


async def resume(request: web.Request) -> web.Response:
    row = await asked(request)
    data = TenantChangeData(kind=ChangeKind.RESUME.value)
    return await _changed(request, row, data, "It is active.")


async def usage(request: web.Request) -> web.Response:
    """Answer what a tenant has, and may have."""
    return _usage(request, (await asked(request)).tenantId)


async def own_usage(request: web.Request) -> web.Response:
    """Answer the same to the tenant itself."""
    await request.app[CONTEXT].registry.ready()
    return _usage(request, tenant_of(request, request.query.get("tenantId")))


def _usage(request: web.Request, tenant: str) -> web.Response:
    row = request.app[CONTEXT].registry.find(tenant)
    known = row.usage.known if row else Usage()
    answer = {
        **success(models.TenantUsage),
        "tenantId": tenant,
        "images": known.images,
        "bytes": known.bytes,
        "limits": request.app[QUOTAS].limits(tenant).known_fields(),
    }
    return json_answer(answer)


async def asked(request: web.Request) -> Tenant:
    """Return the tenant of the address."""
    context = request.app[CONTEXT]
    await context.registry.ready()
    return find(context, check_tenant_id(request.match_info["tenant_id"]))


def find(context: WebContext, tenant: str) -> Tenant:
    row = context.registry.find(tenant)
    if row is None:
        raise TenantNotFound
    return row


def shown(context: WebContext, row: Tenant) -> dict[str, Any]:
    """Return what operators see of a tenant."""
    return {
        "tenantId": row.tenantId,
        "state": row.state if row.state in set(TenantState) else TenantState.SUSPENDED,
        "provisioned": row.provisioned,
        "createdAt": row.createdAt,
        "updatedAt": row.updatedAt,
        "limits": context.quotas.limits(row.tenantId).known_fields(),
        "usage": row.usage.known.known_fields(),
        "keys": len(living(row)),
    }


async def _changed(
    request: web.Request, row: Tenant, data: TenantChangeData, message: str
) -> web.Response:
    context = request.app[CONTEXT]
    if row.state == TenantState.DELETING:
        raise TenantDeleting
    _, after = await context.registry.change(row.tenantId, data)
    answer = {**success(models.TenantAnswer), "message": message, "tenant": shown(context, after)}
    return json_answer(answer)


def _limits(given: Any) -> Limits:
    if given is None:
        return Limits()
    if not isinstance(given, dict):
        raise BadRequest(f"limits is an object of {', '.join(LIMITS)}.")
    allow_only(given, LIMITS)
    return Limits.from_wire({name: whole(given, name, low=0, high=MOST) for name in LIMITS})
