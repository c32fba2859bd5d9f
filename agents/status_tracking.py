"""StatusTracker: owns the status table and decides, once, that a picture reached its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

from deeplens_streams.errors import TableUnavailable
from deeplens_streams.metrics import FINISHED
from deeplens_streams.services import Services
from deeplens_streams.stage import Stage
from deeplens_streams.topics import COMPLETED, PROGRESS, STATUS, Message, Publisher
from models.events import (
    CompletedStep,
    ProcessingCompleted,
    ProcessingCompletedData,
    new_event_id,
    utc_now,
)
from models.status import (
    FINAL_STATES,
    ImageProgress,
    ImageRow,
    ImageState,
    ImageStatusChanged,
)
from tables import image_status

if TYPE_CHECKING:
    import faust

#: Rows that are announced together, at the most.
BUNCH = 64


class Rows(Protocol):
    """What is used of the Faust table."""

    def get(self, key: bytes) -> Any: ...

    def __setitem__(self, key: bytes, value: ImageRow) -> None: ...


async def process(event: ImageProgress, rows: Rows) -> list[Message]:
    """Write the row if the event changes it, and return what is to be sent.

    A report that changes nothing comes from a redelivery. Then what was announced is announced
    again, as the same events, because the crash may have come between writing and announcing.
    """
    key = event.data.imageId.encode()
    with _table_faults():
        before: ImageRow | None = rows.get(key)
    after = image_status.joined(before, event)
    if after is None:
        if before is None or before.tenantId != event.tenantId:
            return []
        return _announcements(before)
    with _table_faults():
        rows[key] = after
    if before is not None and _ended(before) and before.generation == after.generation:
        return [Message(STATUS, _changed(after))]  # a late report; the end was announced
    if _ended(after):
        FINISHED.labels(after.status).inc()
    return _announcements(after)


@contextmanager
def _table_faults() -> Iterator[None]:
    """Whatever a table's store raises passes with its disk, and is no fault of the event."""
    try:
        yield
    except Exception as error:
        raise TableUnavailable from error


def _ended(row: ImageRow) -> bool:
    return row.status in FINAL_STATES


def _announcements(row: ImageRow) -> list[Message]:
    """Return what others are told of a row."""
    messages = [Message(STATUS, _changed(row))]
    if row.status in {ImageState.COMPLETED, ImageState.PARTIAL}:
        messages.append(Message(COMPLETED, _completed(row)))
    return messages


def _completed(row: ImageRow) -> ProcessingCompleted:
    assert row.searchableAfter is not None, "a picture with a stored vector is searchable"
    return ProcessingCompleted(
        eventType=ProcessingCompleted.EVENT_TYPE,
        eventId=image_status.completed_event_id(row),
        timestamp=utc_now(),
        tenantId=row.tenantId,
        correlationId=row.correlationId,
        generation=row.generation,
        data=ProcessingCompletedData(
            imageId=row.imageId,
            status="partial" if row.status == ImageState.PARTIAL else "success",
            totalProcessingTimeMs=_milliseconds(row.uploadedAt, row.lastUpdated),
            searchableAfter=row.searchableAfter,
            processingSteps=[
                CompletedStep(
                    step=step.step,
                    status=step.status,
                    duration=step.duration,
                    modelName=step.modelName,
                    collectionName=step.collectionName,
                )
                for step in row.steps
            ],
        ),
    )


def _milliseconds(start: str, end: str) -> float:
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return round(seconds * 1000, 3)


def _changed(row: ImageRow) -> ImageStatusChanged:
    return ImageStatusChanged(
        eventType=ImageStatusChanged.EVENT_TYPE,
        eventId=new_event_id(),
        timestamp=row.lastUpdated,
        tenantId=row.tenantId,
        correlationId=row.correlationId,
        generation=row.generation,
        data=row,
    )


def register(app: "faust.App", services: Services, publisher: Publisher) -> None:
    del services
    table = cast(Rows, app.tables[image_status.NAME])

    async def one(event: ImageProgress) -> list[Message]:
        return await process(event, table)

    # Faust gives a table one actor, so here it is the sending that is shared.
    stage = Stage("status_tracking", ImageProgress, one, publisher, bunch=BUNCH)

    @app.agent(publisher.channel(PROGRESS), name="StatusTracker")
    async def status_tracking(stream: "faust.StreamT[bytes]") -> None:
        await stage.run(stream)
