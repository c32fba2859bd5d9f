"""The table of tenants: tenant ID to everything that the registry knows of it.

Fed by one topic that is keyed by tenant, so that whoever has a tenant's row is the only one who
hands out its room, and in one order.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from deeplens_streams.topics import TENANT_PARTITIONS
from models.tenants import (
    ApiKey,
    ChangeKind,
    Count,
    Lease,
    Limits,
    Rates,
    Tenant,
    TenantChange,
    TenantChangeData,
    TenantState,
    Usage,
)
from tables.image_status import ROCKSDB_OPTIONS

if TYPE_CHECKING:
    import faust
    from faust.types import TableT

NAME = "tenants"

#: Why a change was refused, as `Tenant.outcomes` says it.
EXISTS, UNKNOWN, FULL, TOO_FAST = "exists", "unknown", "full", "too fast"
#: Outcomes that a row remembers, so that whoever asked finds theirs.
_OUTCOMES = 64
#: A lease hands out this part of the room that is left, so that little lies idle near the limit.
_PART = 8
#: Seconds after which a lease whose holder neither filled nor returned it is taken back.
LEASE_S = 600.0


def register(app: "faust.App") -> "TableT[Any, Any]":
    """Declare the table on the api role's app."""
    return app.Table(
        NAME,
        key_type=bytes,
        value_type=Tenant,
        partitions=TENANT_PARTITIONS,
        options=ROCKSDB_OPTIONS,
        help="Each tenant: its limits, keys and usage",
    )


def changed(row: Tenant | None, event: TenantChange) -> Tenant | None:
    """Return the row after `event`, or None if there is none any more.

    The same event again changes nothing. `row` itself may be changed.
    """
    kind, data = ChangeKind(event.data.kind), event.data
    if kind is ChangeKind.PURGED:
        return None
    if kind is ChangeKind.COUNT:
        row = _counted(row, event)
    elif row is None:
        row = _new(event) if kind in _MAKES else None
        if row is not None:
            refusal = None if kind is ChangeKind.CREATE else _APPLY[kind](row, data, event)
            row.outcomes[event.eventId] = refusal or ""
    elif event.eventId not in row.outcomes:
        refusal = EXISTS if kind is ChangeKind.CREATE else _APPLY[kind](row, data, event)
        row.outcomes[event.eventId] = refusal or ""
    if row is not None:
        row.updatedAt = event.timestamp
        for old in list(row.outcomes)[:-_OUTCOMES]:
            del row.outcomes[old]
    return row


#: Changes that make a row where there is none.
_MAKES = frozenset({ChangeKind.CREATE, ChangeKind.ADD_KEY, ChangeKind.LEASE, ChangeKind.RATE})


def _new(event: TenantChange) -> Tenant:
    return Tenant(
        tenantId=event.tenantId,
        state=TenantState.ACTIVE.value,
        createdAt=event.timestamp,
        updatedAt=event.timestamp,
        limits=(event.data.limits if event.data.kind == ChangeKind.CREATE else None) or Limits(),
        usage=Usage(),
        keys=[],
        leases={},
        rates=Rates(),
        counted={},
        outcomes={},
    )


def _counted(row: Tenant | None, event: TenantChange) -> Tenant | None:
    counts, partition = event.data.counts or [], str(event.data.partition)
    if row is None:
        # With keys off a tenant exists from its first use; one that is gone does not come back.
        if sum(count.images for count in counts) <= 0:
            return None
        row = _new(event)
    seen = row.counted.get(partition, -1)
    for count in counts:
        if count.offset > seen:
            row.usage.images = max(0, row.usage.images + count.images)
            row.usage.bytes = max(0, row.usage.bytes + count.bytes)
            _fill(row, count)
            seen = row.counted[partition] = count.offset
    return row


def _fill(row: Tenant, count: Count) -> None:
    """What was room is usage now."""
    if count.lease:
        _take_back(row, count.lease, count.leaseImages, count.leaseBytes)


def _take_back(row: Tenant, lease_id: str, images: int, size: int) -> None:
    lease = row.leases.get(lease_id)
    if lease is None:
        return
    lease.images -= images
    lease.bytes -= size
    if lease.images <= 0:
        del row.leases[lease_id]


Apply = Callable[[Tenant, TenantChangeData, TenantChange], str | None]


def _limit(row: Tenant, data: TenantChangeData, _event: TenantChange) -> None:
    row.limits = data.limits or Limits()


def _state(state: TenantState) -> Apply:
    def apply(row: Tenant, _data: TenantChangeData, _event: TenantChange) -> None:
        if row.state != TenantState.DELETING:
            row.state = state.value

    return apply


def _provisioned(row: Tenant, _data: TenantChangeData, _event: TenantChange) -> None:
    row.provisioned = True


def _add_key(row: Tenant, data: TenantChangeData, _event: TenantChange) -> None:
    if data.key is not None and all(key.keyId != data.key.keyId for key in row.keys):
        row.keys.append(data.key)


def _expire_key(row: Tenant, data: TenantChangeData, event: TenantChange) -> str | None:
    key = _key(row, data.keyId)
    if key is None:
        return UNKNOWN
    if data.until is None:
        key.revokedAt = key.revokedAt or event.timestamp
    elif key.expiresAt is None or data.until < key.expiresAt:
        key.expiresAt = data.until
    return None


def _keys_used(row: Tenant, data: TenantChangeData, _event: TenantChange) -> None:
    for key_id, at in (data.keysUsed or {}).items():
        key = _key(row, key_id)
        if key is not None:
            key.lastUsedAt = max(key.lastUsedAt or "", at)


def _key(row: Tenant, key_id: str | None) -> ApiKey | None:
    return next((key for key in row.keys if key.keyId == key_id), None)


def _lease(row: Tenant, data: TenantChangeData, event: TenantChange) -> str | None:
    """Hand out room for as many pictures as are asked for, or as it is well to."""
    for known in _stale(row, event.timestamp):
        del row.leases[known]
    limits, held = row.limits.over(data.limits), list(row.leases.values())
    images = _room(limits.images, row.usage.images, [each.images for each in held])
    size = _room(limits.bytes, row.usage.bytes, [each.bytes for each in held])
    if images < 1 or size < data.bytes:
        row.recalls += bool(row.leases)
        return FULL
    granted = min(data.images, max(1, images // _PART))
    part = max(data.bytes, size // _PART)
    row.leases[data.lease or event.eventId] = Lease(
        images=granted,
        bytes=part if limits.bytes is None else min(data.bytes * granted, part),
        at=event.timestamp,
    )
    return None


#: Room where there is no limit.
_ENDLESS = 2**50


def _room(limit: int | None, used: int, held: list[int]) -> int:
    return _ENDLESS if limit is None else max(0, limit - used - sum(held))


def _stale(row: Tenant, now: str) -> list[str]:
    moment = datetime.fromisoformat(now)
    return [
        lease_id
        for lease_id, lease in row.leases.items()
        if (moment - datetime.fromisoformat(lease.at)).total_seconds() > LEASE_S
    ]


def _return(row: Tenant, data: TenantChangeData, _event: TenantChange) -> None:
    if data.lease is not None:
        _take_back(row, data.lease, data.images, data.bytes)


def _rate(row: Tenant, data: TenantChangeData, _event: TenantChange) -> str | None:
    """Hand out uploads or searches of one minute: as many as are asked for, or none."""
    rates, limits = row.rates, row.limits.over(data.limits)
    if data.minute > rates.minute:
        rates.minute, rates.uploads, rates.searches = data.minute, 0, 0
    if data.minute < rates.minute:
        return TOO_FAST
    for limit, used, asked in (
        (limits.uploadsPerMinute, rates.uploads, data.uploads),
        (limits.searchesPerMinute, rates.searches, data.searches),
    ):
        if limit is not None and used + asked > limit:
            return TOO_FAST
    rates.uploads += data.uploads
    rates.searches += data.searches
    return None


_APPLY: dict[ChangeKind, Apply] = {
    ChangeKind.LIMIT: _limit,
    ChangeKind.SUSPEND: _state(TenantState.SUSPENDED),
    ChangeKind.RESUME: _state(TenantState.ACTIVE),
    ChangeKind.DELETE: _state(TenantState.DELETING),
    ChangeKind.PROVISIONED: _provisioned,
    ChangeKind.ADD_KEY: _add_key,
    ChangeKind.EXPIRE_KEY: _expire_key,
    ChangeKind.KEYS_USED: _keys_used,
    ChangeKind.LEASE: _lease,
    ChangeKind.RETURN: _return,
    ChangeKind.RATE: _rate,
}
