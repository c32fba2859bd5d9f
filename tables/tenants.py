"""The table of tenants: tenant ID to everything that the registry knows of it.

Fed by one topic that is keyed by tenant, so that whoever has a tenant's row is the only one who
hands out its room, and in one order.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from deeplens_streams.broker.topology import TENANT_PARTITIONS, TENANT_TABLE
from models.events import wire_time
from models.tenants import (
    SYSTEM,
    ApiKey,
    ChangeKind,
    Limits,
    Rates,
    Tenant,
    TenantChange,
    TenantChangeData,
    TenantRecord,
    TenantState,
    Usage,
    milliseconds,
    record_of,
)
from tables import quota_leases
from tables.image_status import ROCKSDB_OPTIONS

if TYPE_CHECKING:
    import faust
    from faust.types import TableT

NAME = TENANT_TABLE

#: Why a change was refused, as `Tenant.outcomes` says it; `quota_leases.FULL` is another reason.
EXISTS, UNKNOWN, TOO_FAST, GOING = "exists", "unknown", "too fast", "deleting"
#: The same, of a recount that was made of a row as it is no more.
OUTDATED = "outdated"
#: Outcomes that a row remembers, so that whoever asked finds theirs.
_OUTCOMES = 64
#: Keys that ended stay to be seen for so many days, and no more than so many of them.
ENDED_DAYS, MAX_ENDED = 30, 50
_MINUTE_S = 60


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


def changed(
    row: Tenant | None, event: TenantChange, *, is_open: bool = False, purged_at: str | None = None
) -> Tenant | None:
    """Return the row after `event`, or None if there is none any more.

    The same event again changes nothing. `row` itself may be changed.

    Parameters
    ----------
    is_open : whether a tenant that nobody made exists from its first use: keys are off.
    purged_at : when the last purge of a tenant of this name was at its end; needed where there is
        no row and `makes_row` says that there may be one.
    """
    kind, data = ChangeKind(event.data.kind), event.data
    if kind is ChangeKind.PURGED:
        # In another state, it is a tenant that was made since.
        return row if row is not None and row.state != TenantState.DELETING else None
    is_new = row is None
    if row is None:
        is_late = purged_at is not None and event.timestamp <= purged_at
        if not makes_row(event, is_open=is_open) or (is_late and kind in _USES):
            return None
        row = _new(event, purged_at)
    if kind is ChangeKind.COUNT:
        # What happened to pictures of a tenant that is gone is no matter of the next one's.
        if row.purgedAt is None or event.timestamp > row.purgedAt:
            quota_leases.count(row, data.partition, data.counts or [])
    elif event.eventId not in row.outcomes:
        if kind is ChangeKind.CREATE:
            refusal = None if is_new else EXISTS
        else:
            refusal = _APPLY[kind](row, data, event)
        row.outcomes[event.eventId] = refusal or ""
        if kind in KEPT and refusal is None:
            row.revision = max(row.revision + 1, milliseconds(event.timestamp))
    row.updatedAt = event.timestamp
    for old in list(row.outcomes)[:-_OUTCOMES]:
        del row.outcomes[old]
    return row


#: Changes by which a tenant exists where everybody may use the system.
_USES = frozenset({ChangeKind.COUNT, ChangeKind.LEASE, ChangeKind.RATE})


#: Changes of what storage keeps of a row; the others count or hand out.
KEPT = frozenset(
    {
        *(ChangeKind.CREATE, ChangeKind.LIMIT, ChangeKind.SUSPEND, ChangeKind.RESUME),
        *(ChangeKind.PROVISIONED, ChangeKind.DELETE, ChangeKind.ADD_KEY, ChangeKind.EXPIRE_KEY),
    }
)


_KEPT_FIELDS = ("state", "updatedAt", "revision", "limits", "keys", "provisioned", "purgedAt")


def restored(row: Tenant | None, record: TenantRecord) -> Tenant:
    """Return the row with what storage keeps of it, where that is later.

    Where there was none, or one of an earlier tenant of the name, it counts from nothing: an audit
    counts what there is.
    """
    if row is not None and record_of(row).order >= record.order:
        return row
    if row is None or row.createdAt != record.createdAt:
        row = _empty(record.tenantId, record.createdAt)
    ended = {key.keyId: key.revokedAt for key in row.keys}
    for name in _KEPT_FIELDS:
        setattr(row, name, getattr(record, name))
    for key in row.keys:  # whatever is later, a key that was revoked stays so
        key.revokedAt = key.revokedAt or ended.get(key.keyId)
    return row.succeeding(record)


def makes_row(event: TenantChange, *, is_open: bool) -> bool:
    """Tell whether `event` makes a row where there is none."""
    kind = event.data.kind
    if kind == ChangeKind.COUNT:
        return is_open and sum(count.images for count in event.data.counts or []) > 0
    if kind == ChangeKind.ADD_KEY:
        return event.tenantId == SYSTEM
    # What is being deleted is refused until it is gone, also where nobody had made it.
    return kind in {ChangeKind.CREATE, ChangeKind.DELETE} or (is_open and kind in _USES)


def _new(event: TenantChange, purged_at: str | None) -> Tenant:
    row = _empty(event.tenantId, event.timestamp)
    if event.data.kind == ChangeKind.CREATE:
        row.limits = event.data.limits or Limits()
    row.purgedAt, row.revision = purged_at, milliseconds(event.timestamp)
    return row


def _empty(tenant: str, created_at: str) -> Tenant:
    return Tenant(
        tenantId=tenant,
        state=TenantState.ACTIVE.value,
        createdAt=created_at,
        updatedAt=created_at,
        limits=Limits(),
        usage=Usage(),
        keys=[],
        leases={},
        rates=Rates(),
        counted={},
        outcomes={},
    )


Apply = Callable[[Tenant, TenantChangeData, TenantChange], str | None]


def _limit(row: Tenant, data: TenantChangeData, _event: TenantChange) -> None:
    # Limits of a newer version are not this one's to lift.
    row.limits = (data.limits or Limits()).carrying(row.limits)


def _state(state: TenantState) -> Apply:
    def apply(row: Tenant, _data: TenantChangeData, _event: TenantChange) -> None:
        if row.state != TenantState.DELETING:
            row.state = state.value

    return apply


def _unless_going(apply: Apply) -> Apply:
    """Return the same, refused for a tenant that is being removed."""

    def refuse(row: Tenant, data: TenantChangeData, event: TenantChange) -> str | None:
        return GOING if row.state == TenantState.DELETING else apply(row, data, event)

    return refuse


def _provisioned(row: Tenant, _data: TenantChangeData, _event: TenantChange) -> None:
    row.provisioned = True


def _add_key(row: Tenant, data: TenantChangeData, event: TenantChange) -> None:
    if data.key is not None and all(key.keyId != data.key.keyId for key in row.keys):
        row.keys.append(data.key)
    _forget_ended(row, event.timestamp)


def _forget_ended(row: Tenant, now: str) -> None:
    """Forget keys that ended long ago, or before many others: a row has to fit into a message."""
    first = wire_time(datetime.fromisoformat(now) - timedelta(days=ENDED_DAYS))
    ended = sorted(
        (at, key.keyId) for key in row.keys if (at := key.ended_at(now)) is not None and at > first
    )
    kept = {key_id for _, key_id in ended[-MAX_ENDED:]}
    row.keys = [key for key in row.keys if key.ended_at(now) is None or key.keyId in kept]


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


def _rate(row: Tenant, data: TenantChangeData, _event: TenantChange) -> str | None:
    """Hand out uploads or searches of one minute: as many as are asked for, or none.

    The minute is that of this worker's clock, so that it begins once, whatever others think.
    """
    rates, limits, minute = row.rates, row.limits.over(data.limits), int(time.time() // _MINUTE_S)
    if minute != rates.minute:
        rates.minute, rates.uploads, rates.searches = minute, 0, 0
    for limit, used, asked in (
        (limits.uploadsPerMinute, rates.uploads, data.uploads),
        (limits.searchesPerMinute, rates.searches, data.searches),
    ):
        if limit is not None and used + asked > limit:
            return TOO_FAST
    rates.uploads += data.uploads
    rates.searches += data.searches
    return None


def _recount(row: Tenant, data: TenantChangeData, _event: TenantChange) -> str | None:
    """Correct the usage by what is missing; what came and went meanwhile stays counted.

    A mark that is forgotten is of a topic that was lost: its offsets begin at 0 again, and below
    the mark nothing would count.
    """
    if data.createdAt != row.createdAt or data.recounts not in (None, row.recounts):
        return OUTDATED
    row.usage.images += data.images
    row.usage.bytes += data.bytes
    row.recounts += data.recounts is not None
    for partition, mark in (data.marks or {}).items():
        if row.counted.get(partition) == mark:
            del row.counted[partition]
    return None


def _nothing(_row: Tenant, _data: TenantChangeData, _event: TenantChange) -> None:
    """What is asked for was done before this came to the row."""


_APPLY: dict[ChangeKind, Apply] = {
    ChangeKind.RESTORE: _nothing,
    ChangeKind.RECOUNT: _recount,
    ChangeKind.LIMIT: _limit,
    ChangeKind.SUSPEND: _state(TenantState.SUSPENDED),
    ChangeKind.RESUME: _state(TenantState.ACTIVE),
    ChangeKind.DELETE: _state(TenantState.DELETING),
    ChangeKind.PROVISIONED: _provisioned,
    ChangeKind.ADD_KEY: _add_key,
    ChangeKind.EXPIRE_KEY: _expire_key,
    ChangeKind.KEYS_USED: _keys_used,
    ChangeKind.LEASE: _unless_going(quota_leases.lease),
    ChangeKind.RETURN: quota_leases.give_back,
    ChangeKind.REFUSED: quota_leases.refused,
    ChangeKind.RATE: _unless_going(_rate),
}
