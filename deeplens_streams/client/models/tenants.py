"""Answers about tenants, their keys, their collections and what operators did."""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from deeplens_streams.client.models.base import (
    Answer,
    Cursor,
    Reply,
    TenantId,
    Time,
    one_of,
    record,
)
from deeplens_streams.client.models.json_schemas import TENANT_ID
from models.collections import CollectionStatus
from models.states import Scope, TenantState

Limits = Annotated[dict[str, Any], record("Limits")]
Owner = (
    Annotated[str, WithJsonSchema(TENANT_ID | {"description": "Null for operators' keys."})] | None
)
#: A key itself: there when it is made, and never again.
Secret = Annotated[str, Field(description="Shown this once.")] | None


class TenantPurge(Reply):
    """How far the deletion of a tenant is."""

    tenant_id: TenantId
    requested_at: Time
    completed_at: Time | None
    images_deleted: int | None
    images_left: int | None


class TenantSummary(Answer):
    """What the registry has of a tenant; `limits` and `usage` as they go over the wire."""

    tenant_id: TenantId
    state: Annotated[str, one_of(*TenantState)]
    provisioned: bool
    created_at: Time
    updated_at: Time
    limits: Limits
    usage: Annotated[dict[str, Any], record("Usage")]
    keys: int


class TenantStep(Answer):
    step: str
    status: Annotated[str, one_of("completed", "skipped", "failed")]
    message: str


class TenantAnswer(Reply):
    """`api_key` is there when a tenant is made, and never again."""

    tenant: TenantSummary
    steps: list[TenantStep]
    api_key: Secret


class TenantNotReady(TenantAnswer):
    """What a tenant needs, of which something is not there."""

    success: Literal[False]
    message: str
    tenant: TenantSummary | None  # type: ignore[assignment] # none is read as such
    api_key: str | None
    error_code: str


class TenantPage(Reply):
    tenants: list[TenantSummary]
    next_cursor: Cursor


class TenantUsage(Reply):
    tenant_id: TenantId
    images: int
    bytes: int
    limits: Limits


class KeySummary(Answer):
    """What may be seen of a key: all but its secret."""

    key_id: str
    scopes: list[Annotated[str, one_of(*Scope)]]
    created_at: Time
    name: str
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None


class Keys(Reply):
    tenant_id: Owner
    keys: list[KeySummary]


class KeyAnswer(Reply):
    """`api_key` is there when a key is made, and never again."""

    tenant_id: Owner = None
    key: KeySummary
    api_key: Secret


class AdminActions(Reply):
    """What operators did."""

    actions: list[Annotated[dict[str, Any], record("AdminAction")]]
    next_cursor: Cursor


class CollectionSummary(Answer):
    model_name: str
    collection_name: str
    vector_count: int
    vector_dimension: int
    status: Annotated[str, one_of(*CollectionStatus)]


class CollectionMade(Reply):
    collection_name: str
    vector_count: int
    already_existed: bool


class Collections(Reply):
    """A tenant's collections, by model."""

    tenant_id: TenantId
    collections: list[CollectionSummary]


class CollectionFigures(Reply):
    """One collection's figures, as they are now."""

    collection_name: str
    vector_count: int
    vector_dimension: int
    status: Annotated[str, one_of(*CollectionStatus)]
    indexed_vector_count: int | None
    memory_usage_mb: float | None = Field(alias="memoryUsageMB")
