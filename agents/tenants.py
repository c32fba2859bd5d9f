"""TenantKeeper: owns the table of tenants, hands out their room, and tells every api process."""

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog

from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import TENANT_KEEPING, TENANTS
from deeplens_streams.errors import NewerVersion, StorageUnavailable
from deeplens_streams.pipeline.registration import register_stage
from deeplens_streams.services import Services
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.storage.tenant_records import DamagedRecord, Verdict
from deeplens_streams.tenancy.api_keys import operator_key
from models.tenants import (
    SYSTEM,
    ChangeKind,
    Tenant,
    TenantChange,
    TenantChanged,
    TenantState,
    record_of,
)
from tables import tenants
from tables.durable import DurableTable
from tables.errors import table_faults

if TYPE_CHECKING:
    import faust

log = structlog.get_logger()

#: Changes whose rows are announced together, at the most.
BATCH = 64


class Rows(Protocol):
    """What is used of the Faust table."""

    def get(self, key: bytes) -> Any: ...

    def __setitem__(self, key: bytes, value: Tenant) -> None: ...

    def __delitem__(self, key: bytes) -> None: ...


async def process(
    event: TenantChange, rows: Rows, services: Services, *, is_open: bool
) -> list[Message]:
    """Write the tenant's row as it is after the change, and return it for everybody to see.

    Parameters
    ----------
    is_open : whether a tenant that nobody made exists from its first use.
    """
    if event.data.kind not in set(ChangeKind):
        raise NewerVersion(
            f"This version knows no change {event.data.kind[:40]!r} of a tenant; retry its dead "
            "letter when every api worker knows it, or discard it."
        )
    key, kind = event.tenantId.encode(), event.data.kind
    with table_faults():
        before: Tenant | None = rows.get(key)
    if kind in {ChangeKind.DELETE, ChangeKind.PURGED}:
        services.tenant_records.look_again(event.tenantId)
    row = await _standing(before, event, services)
    purged_at = None
    if row is None and tenants.makes_row(event, is_open=is_open):
        purged_at = await _purged_at(event, services)
    after = tenants.changed(row, event, is_open=is_open, purged_at=purged_at)
    # 1. what storage keeps, 2. the row and its changelog, 3. everybody
    if after is not None and (row is None or kind in tenants.KEPT):
        await services.tenant_records.keep(record_of(after))
    elif after is None and kind == ChangeKind.PURGED:
        created_at = None if before is None else before.createdAt
        await services.tenant_records.remove(event.tenantId, created_at=created_at)
    is_gone = after is None and (before is not None or kind == ChangeKind.PURGED)
    with table_faults():
        if after is not None:
            rows[key] = after
        elif is_gone:
            with suppress(KeyError):  # gone from here already; its changelog may not know
                del rows[key]
    if after is not None:
        return [Message(TENANTS, announced(after))]
    return [Message(TENANTS, event, is_tombstone=True)] if is_gone else []


async def _standing(
    before: Tenant | None, event: TenantChange, services: Services
) -> Tenant | None:
    """Return the row that the change is of, as far as it is one.

    It is none where it is of before the tenant's purge, as an old copy of the table has it, and
    more than the table has where Kafka was lost and storage was not.
    """
    records, kind = services.tenant_records, event.data.kind
    # What is in the table may be the very object: a failed attempt must not have changed it.
    row = None if before is None else _copy(before)
    if kind == ChangeKind.PURGED:
        return row
    try:
        if row is not None:
            verdict = await records.judge(row)
            if verdict is Verdict.GOES:
                row.state = TenantState.DELETING.value
            elif verdict is Verdict.GONE:
                log.warning("a row of a deleted tenant is refused", tenant=event.tenantId)
                row = None
        if row is None or kind == ChangeKind.RESTORE:
            row = await _read_back(row, event, services)
    except StorageUnavailable:
        # Other tenants' changes must not wait. What storage would have said is said to the next
        # change, or by a look at all that it keeps.
        pass
    return row


async def _read_back(row: Tenant | None, event: TenantChange, services: Services) -> Tenant | None:
    records = services.tenant_records
    try:
        record = await records.find(event.tenantId)
    except DamagedRecord:
        return row
    verdict = Verdict.GONE if record is None else await records.judge(record)
    if record is None or verdict in {Verdict.GONE, Verdict.UNKNOWN}:
        return row
    if verdict is Verdict.GOES:
        record.state = TenantState.DELETING.value
    known = None if row is None else (row.createdAt, row.revision)
    after = tenants.restored(row, record)
    if (after.createdAt, after.revision) != known:
        log.warning(
            "a tenant is read back from storage",
            tenant=event.tenantId,
            revision=record.revision,
            made_at=record.createdAt,
        )
    return after


async def _purged_at(event: TenantChange, services: Services) -> str | None:
    """Return when the last purge of a tenant of this name came to its end, or that it has not."""
    if event.tenantId == SYSTEM or event.data.kind == ChangeKind.DELETE:
        return None
    try:
        purge = await services.tombstones.find_purge(tenant=event.tenantId)
    except StorageUnavailable:
        if event.data.kind not in {ChangeKind.CREATE, ChangeKind.RATE}:
            raise
        return event.timestamp  # other tenants' changes must not wait; all before it is not its own
    except DamagedMetadata:
        return event.timestamp
    return None if purge is None else purge.emptiedAt or purge.completedAt or event.timestamp


def _copy(row: Tenant) -> Tenant:
    return Tenant.from_wire(row.to_wire())


def announced(row: Tenant) -> TenantChanged:
    return TenantChanged.new(row.tenantId, row, timestamp=row.updatedAt)


def last_of_each(messages: list[Message]) -> list[Message]:
    """Return the last row of each tenant: the others are not worth sending."""
    last = {message.event.tenantId: message for message in messages if message.topic is TENANTS}
    others = [message for message in messages if message.topic is not TENANTS]
    return [*others, *last.values()]


def register(app: "faust.App", services: Services, publisher: Publisher) -> None:
    table = cast(DurableTable, app.tables[tenants.NAME])
    is_open = operator_key(services.settings) is None
    register_stage(
        app,
        TENANT_KEEPING,
        partial(process, rows=table, services=services, is_open=is_open),
        services=services,
        publisher=publisher,
        batch_size=BATCH,
        coalesce=last_of_each,
        settled=table.settled,
    )
