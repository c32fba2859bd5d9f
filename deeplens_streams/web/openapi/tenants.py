"""Tenants, their limits and their keys."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from deeplens_streams.client.models.json_schemas import (
    STRING,
    TENANT_ID,
    TIME,
    Schema,
    array,
    choice,
    nullable,
    ref,
)
from deeplens_streams.errors import (
    BadRequest,
    InvalidTenantId,
    KeyEnded,
    KeyNotFound,
    TenantDeleting,
    TenantExists,
    TenantNotFound,
)
from deeplens_streams.tenancy.api_keys import TENANT_SCOPES
from deeplens_streams.web.handlers import admin_log, api_keys, tenants
from deeplens_streams.web.openapi import parts
from deeplens_streams.web.openapi.operation import JSON, Answer, Operation, Parameter, json_body
from models.tenants import Scope

_TAG: Final = "tenants"
_KEYS: Final = "keys"
_KEY: Final = Parameter(
    name="key_id",
    schema=STRING,
    description="What the key is called: the part before its secret.",
    place="path",
    required=True,
)
_LIMIT: Final[Schema] = nullable({"type": "integer", "minimum": 0, "maximum": tenants.MOST})
_LIMITS: Final[Schema] = nullable(
    {
        "type": "object",
        "properties": dict.fromkeys(tenants.LIMITS, _LIMIT),
        "additionalProperties": False,
    }
)
_CHANGES: Final[parts.Errors] = (*parts.REGISTRY, *parts.STORAGE)
_ONE: Final[parts.Errors] = (InvalidTenantId, TenantNotFound, *_CHANGES)
_STUCK: Final = Answer(
    description="A step failed; the same request goes on from there.",
    schemas={JSON: ref("TenantNotReady")},
)


def _moved(handler: Callable[..., Awaitable[Any]], name: str, summary: str) -> Operation:
    return Operation(
        handler=handler,
        name=name,
        tag=_TAG,
        summary=summary,
        parameters=(parts.TENANT,),
        errors=(*_ONE, TenantDeleting),
    )


_OPERATIONS: Final = (
    Operation(
        handler=tenants.create,
        name="createTenant",
        tag=_TAG,
        summary="Make a tenant with everything that it needs",
        details="Asked again, it goes on where it was cut off.",
        body=json_body({"tenantId": TENANT_ID, "limits": _LIMITS}, "tenantId", closed=True),
        statuses=(201,),
        answers={503: _STUCK},
        errors=(*parts.JSON_BODY, InvalidTenantId, TenantExists, TenantDeleting, *_CHANGES),
    ),
    Operation(
        handler=tenants.listing,
        name="listTenants",
        tag=_TAG,
        summary="List tenants by ID",
        parameters=(parts.LIMIT, parts.CONTINUE),
        errors=(BadRequest, *parts.REGISTRY),
    ),
    Operation(
        handler=tenants.show,
        name="getTenant",
        tag=_TAG,
        summary="One tenant",
        parameters=(parts.TENANT,),
        errors=(InvalidTenantId, TenantNotFound, *parts.REGISTRY),
    ),
    Operation(
        handler=tenants.change,
        name="changeTenant",
        tag=_TAG,
        summary="Change the limits that are named",
        parameters=(parts.TENANT,),
        body=json_body({"limits": _LIMITS}, closed=True),
        errors=(*_ONE, *parts.JSON_BODY, TenantDeleting),
    ),
    _moved(tenants.suspend, "suspendTenant", "Refuse everything of a tenant"),
    _moved(tenants.resume, "resumeTenant", "Let a suspended tenant in again"),
    Operation(
        handler=tenants.check,
        name="checkTenant",
        tag=_TAG,
        summary="Look at everything that a tenant needs",
        parameters=(parts.TENANT,),
        answers={
            503: Answer(
                description="Something is missing or away.", schemas={JSON: ref("TenantNotReady")}
            )
        },
        errors=_ONE,
    ),
    Operation(
        handler=tenants.usage,
        name="getTenantUsage",
        tag=_TAG,
        summary="What a tenant has, and may have",
        parameters=(parts.TENANT,),
        errors=(InvalidTenantId, TenantNotFound, *parts.REGISTRY),
    ),
    Operation(
        handler=tenants.own_usage,
        name="getUsage",
        tag=_TAG,
        summary="What the key's tenant has, and may have",
        parameters=(
            Parameter(
                name="tenantId",
                schema=TENANT_ID,
                description="Needed where the key names none.",
            ),
        ),
        errors=(InvalidTenantId, TenantNotFound, *parts.REGISTRY),
    ),
    Operation(
        handler=admin_log.listing,
        name="listAdminActions",
        tag="admin",
        summary="What operators did, newest first",
        parameters=(parts.LIMIT, parts.CONTINUE),
        errors=(BadRequest, *parts.STORAGE),
    ),
)


def _key_operations(
    handlers: tuple[Callable[..., Awaitable[Any]], ...],
    whose: str,
    scopes: tuple[str, ...],
    *parameters: Parameter,
) -> tuple[Operation, ...]:
    """Return what can be done with the keys of one kind of owner."""
    listing, create, revoke, rotate = handlers
    errors = (*_CHANGES, *((InvalidTenantId, TenantNotFound) if parameters else ()))
    new = {
        "name": nullable({"type": "string", "maxLength": api_keys.MAX_NAME}),
        "scopes": nullable(array(choice(*scopes)) | {"minItems": 1}),
        "expiresAt": nullable(TIME),
    }
    overlap = {"type": "integer", "minimum": 0, "maximum": api_keys.MAX_OVERLAP_S}
    return (
        Operation(
            handler=listing,
            name=f"list{whose}Keys",
            tag=_KEYS,
            summary="What is known of keys; none is shown again",
            parameters=parameters,
            errors=errors,
        ),
        Operation(
            handler=create,
            name=f"create{whose}Key",
            tag=_KEYS,
            summary="Make a key",
            parameters=parameters,
            body=json_body(new, closed=True),
            statuses=(201,),
            errors=(*errors, *parts.JSON_BODY),
        ),
        Operation(
            handler=revoke,
            name=f"revoke{whose}Key",
            tag=_KEYS,
            summary="End a key at once",
            parameters=(*parameters, _KEY),
            errors=(*errors, KeyNotFound),
        ),
        Operation(
            handler=rotate,
            name=f"rotate{whose}Key",
            tag=_KEYS,
            summary="Make a key like another one, which ends after an overlap",
            parameters=(*parameters, _KEY),
            body=json_body({"overlapSeconds": nullable(overlap)}, closed=True),
            statuses=(201,),
            errors=(*errors, KeyNotFound, KeyEnded, *parts.JSON_BODY),
        ),
    )


OPERATIONS: Final = (
    *_OPERATIONS,
    *_key_operations(api_keys.OF_TENANTS, "Tenant", TENANT_SCOPES, parts.TENANT),
    *_key_operations(api_keys.OF_OPERATORS, "Operator", tuple(Scope)),
)
