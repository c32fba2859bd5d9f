"""StatusTracker: owns the status table and decides, once, that a picture reached its end."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

from deeplens_streams.metrics import FINISHED
from deeplens_streams.services import Services
from deeplens_streams.stage import Message, Stage
from deeplens_streams.topics import COMPLETED, PROGRESS, STATUS, Publisher
from models.events import (
    CompletedStep,
    ProcessingCompleted,
    ProcessingCompletedData,
    new_event_id,
    utc_now,
)
from models.status import ImageProgress, ImageRow, ImageState, ImageStatusChanged
from tables import image_status

if TYPE_CHECKING:
    import faust


class Rows(Protocol):
    """What is used of the Faust table."""

    def get(self, key: bytes) -> Any: ...

    def __setitem__(self, key: bytes, value: ImageRow) -> None: ...


def process(event: ImageProgress, rows: Rows) -> tuple[ImageRow | None, list[Message]]:
    """Return the changed row and what is to be sent before it is written."""
    before: ImageRow | None = rows.get(event.data.imageId.encode())
    after = image_status.joined(before, event)
    if after is None:
        return None, []
    messages = []
    if after.status in {ImageState.COMPLETED, ImageState.PARTIAL} and (
        before is None or before.generation < after.generation or before.status != after.status
    ):
        messages.append(Message(COMPLETED, _completed(after)))
    return after, messages


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
        row, messages = process(event, table)
        if row is None:
            return []
        # 1. The end is announced; a repeat after a crash is the same event.
        for message in messages:
            await publisher.send(message.topic, message.event)
            FINISHED.labels(row.status).inc()
        # 2. The row is written, with its changelog.
        table[row.imageId.encode()] = row
        # 3. Whoever watches is told. Nobody waits for Kafka's answer here: a lost hint costs
        # a watcher one poll, and waiting would hold up every other row.
        await publisher.begin(STATUS, _changed(row))
        return []

    stage = Stage("status_tracking", ImageProgress, one, publisher)

    @app.agent(publisher.channel(PROGRESS), name="StatusTracker")
    async def status_tracking(stream: "faust.StreamT[bytes]") -> None:
        await stage.run(stream.events())
