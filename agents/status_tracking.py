"""StatusTracker: owns the status table and decides, once, that a picture reached its end."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, cast

from agents import status_events
from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import STATUS, STATUS_TRACKING
from deeplens_streams.errors import StorageUnavailable
from deeplens_streams.metrics import FINISHED
from deeplens_streams.pipeline.registration import register_stage
from deeplens_streams.services import Services
from deeplens_streams.storage.image_objects import DamagedMetadata
from models.events import utc_now
from models.status import FINAL_STATES, Ending, ImageProgress, ImageRow, StepStatus
from tables import image_status
from tables.durable import DurableTable
from tables.errors import table_faults

if TYPE_CHECKING:
    import faust

#: Rows that are announced together, at the most.
BATCH = 64


class Rows(Protocol):
    """What is used of the Faust table."""

    def get(self, key: bytes) -> Any: ...

    def __setitem__(self, key: bytes, value: ImageRow) -> None: ...

    def __delitem__(self, key: bytes) -> None: ...


class Tenants(Protocol):
    """What is used of the registry of tenants."""

    def has(self, tenant: str, since: str | None) -> bool:
        """Tell whether the tenant is there, and was at `since`; False where nobody can tell."""


async def process(
    event: ImageProgress, rows: Rows, services: Services, tenants: Tenants
) -> list[Message]:
    """Write the row if the event changes it, and return what is to be sent.

    A report that changes nothing comes from a redelivery. Then the row is written again, and what
    was announced is announced again, as the same events: the crash may have come between writing
    the row here and telling its changelog, or announcing it.
    """
    key = event.data.imageId.encode()
    with table_faults():
        before: ImageRow | None = rows.get(key)
    if event.data.ending == Ending.PURGED:
        return _purged(event, before, rows)
    if before is not None and before.tenantId != event.tenantId and await _owns(event, services):
        before = None  # a stranger was faster than the picture's first report
    after = image_status.joined(before, event, now=utc_now())
    if after is None and (before is None or before.tenantId != event.tenantId):
        return []
    since = event.data.uploadedAt if before is None else before.uploadedAt
    is_there = tenants.has(event.tenantId, since)
    if is_there and before is None:
        is_there = not _may_be_forgotten(since, services)
    if not is_there and await _is_gone(event, before, services):
        return []
    if after is None:
        assert before is not None, "else there is nothing to say"
        with table_faults():
            rows[key] = before
        return [*status_events.of_row(before), *status_events.of_usage(before, event)]
    with table_faults():
        rows[key] = after
    usage = status_events.of_usage(after, event)
    if before is not None and _ended(before) and before.generation == after.generation:
        # A late report; the end was announced.
        return [Message(STATUS, status_events.changed(after)), *usage]
    if _ended(after):
        FINISHED.labels(after.status).inc()
    return [*status_events.of_row(after), *usage]


def _may_be_forgotten(since: str | None, services: Services) -> bool:
    """Tell whether a picture without a row is old enough to have been deleted and forgotten."""
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(since or "")
    except (ValueError, TypeError):  # no time, or one without an offset: not of ours
        return False
    return age > timedelta(days=services.settings.tombstone_days)


def _purged(event: ImageProgress, row: ImageRow | None, rows: Rows) -> list[Message]:
    """Remove the row of a tenant that is gone, from the compacted topics, too."""
    if row is not None and row.tenantId != event.tenantId:
        return []
    # Also where it is gone from here: its changelog may not know.
    with table_faults(), suppress(KeyError):
        del rows[event.data.imageId.encode()]
    return [Message(STATUS, event, is_tombstone=True)]


async def _owns(event: ImageProgress, services: Services) -> bool:
    """Tell whether the picture is, or was, of the event's tenant."""
    image_id = event.data.imageId
    if await services.storage.get_metadata(tenant=event.tenantId, image_id=image_id) is not None:
        return True
    tombstone = await services.tombstones.find(image_id)
    return tombstone is not None and tombstone.tenantId == event.tenantId


async def _is_gone(event: ImageProgress, row: ImageRow | None, services: Services) -> bool:
    """Tell whether a picture went with its tenant, so that nothing is to be noted of it.

    Storage that is away is not waited for, since all rows here would wait with this one, and what
    is damaged there tells nothing. Without a row, what is said again is left to the next time;
    else there may be a row too many, which an audit finds.
    """
    try:
        if row is None:
            return await _is_purged(event, services)
        return await _is_recovered(row, event, services)
    except (StorageUnavailable, DamagedMetadata):
        return row is None and _is_said_again(event)


async def _is_purged(event: ImageProgress, services: Services) -> bool:
    """Tell whether a picture without a row went with its tenant: then there is to be none again.

    What a stage says of a picture that is stored still is not late: its end comes behind it.
    """
    tenant, image_id = event.tenantId, event.data.imageId
    if event.data.ending is not None:
        purge = await services.tombstones.find_purge(tenant=tenant)
        is_going = purge is not None and purge.completedAt is None
        return is_going or await services.tombstones.find(image_id) is None
    try:
        found = await services.storage.get_metadata(
            tenant=tenant, image_id=image_id, uploaded_at=event.data.uploadedAt
        )
    except DamagedMetadata:
        return False
    return found is None


async def _is_recovered(row: ImageRow, event: ImageProgress, services: Services) -> bool:
    """Tell whether a row is of a tenant that is gone, and came back without its removal.

    That comes again behind what a stage says. Until then nothing is to count for the tenant.
    """
    if event.data.ending is not None:
        return False
    purge = await services.tombstones.find_purge(tenant=row.tenantId)
    return purge is not None and row.uploadedAt <= purge.requestedAt


def _is_said_again(event: ImageProgress) -> bool:
    """Tell whether nothing is lost without an event: an end, or why a picture waits.

    An end is told again behind the last step of a purge, and the other every minute.
    """
    reports = event.data.reports
    is_ending = event.data.ending is not None
    return is_ending or all(each.status == StepStatus.RETRYING for each in reports)


def _ended(row: ImageRow) -> bool:
    return row.status in FINAL_STATES


def register(app: "faust.App", services: Services, publisher: Publisher, tenants: Tenants) -> None:
    table = cast(DurableTable, app.tables[image_status.NAME])

    async def one(event: ImageProgress) -> list[Message]:
        return await process(event, table, services, tenants)

    # Faust gives a table one actor, so here it is the sending that is shared.
    register_stage(
        app,
        STATUS_TRACKING,
        one,
        services=services,
        publisher=publisher,
        batch_size=BATCH,
        coalesce=status_events.together,
        settled=table.settled,
    )
