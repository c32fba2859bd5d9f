"""TenantKeeper: owns the table of tenants, hands out their room, and tells every api process."""

from typing import TYPE_CHECKING, Any, Protocol, cast

from deeplens_streams.errors import MalformedEvent
from deeplens_streams.services import Services
from deeplens_streams.stage import Stage
from deeplens_streams.topics import TENANT_CHANGES, TENANTS, Message, Publisher
from models.events import new_event_id
from models.tenants import ChangeKind, Tenant, TenantChange, TenantChanged
from tables import tenants
from tables.faults import table_faults

if TYPE_CHECKING:
    import faust

#: Changes whose rows are announced together, at the most.
BUNCH = 64


class Rows(Protocol):
    """What is used of the Faust table."""

    def get(self, key: bytes) -> Any: ...

    def __setitem__(self, key: bytes, value: Tenant) -> None: ...

    def __delitem__(self, key: bytes) -> None: ...


async def process(event: TenantChange, rows: Rows) -> list[Message]:
    """Write the tenant's row as it is after the change, and return it for everybody to see."""
    if event.data.kind not in set(ChangeKind):
        raise MalformedEvent(f"There is no change {event.data.kind[:40]!r} of a tenant.")
    key = event.tenantId.encode()
    with table_faults():
        before: Tenant | None = rows.get(key)
    # What is in the table may be the very object: a failed attempt must not have changed it.
    after = tenants.changed(None if before is None else _copy(before), event)
    with table_faults():
        if after is not None:
            rows[key] = after
        elif before is not None:
            del rows[key]
    if after is not None:
        return [Message(TENANTS, announced(after))]
    if before is not None or event.data.kind == ChangeKind.PURGED:
        return [Message(TENANTS, event, is_tombstone=True)]
    return []


def _copy(row: Tenant) -> Tenant:
    return Tenant.from_wire(row.to_wire())


def announced(row: Tenant) -> TenantChanged:
    return TenantChanged(
        eventType=TenantChanged.EVENT_TYPE,
        eventId=new_event_id(),
        timestamp=row.updatedAt,
        tenantId=row.tenantId,
        data=row,
    )


def last_of_each(messages: list[Message]) -> list[Message]:
    """Return the last row of each tenant: the others are not worth sending."""
    last = {message.event.tenantId: message for message in messages if message.topic is TENANTS}
    others = [message for message in messages if message.topic is not TENANTS]
    return [*others, *last.values()]


def register(app: "faust.App", services: Services, publisher: Publisher) -> None:
    table = cast(Rows, app.tables[tenants.NAME])

    async def one(event: TenantChange) -> list[Message]:
        return await process(event, table)

    stage = Stage(
        "tenants",
        TenantChange,
        one,
        publisher,
        services.breakers,
        bunch=BUNCH,
        fold=last_of_each,
    )

    @app.agent(publisher.channel(TENANT_CHANGES), name="TenantKeeper")
    async def tenant_changes(stream: "faust.StreamT[bytes]") -> None:
        await stage.run(stream)
