"""What the status table's agent tells others: rows, pictures at their end, and usage."""

from datetime import datetime

from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import COMPLETED, STATUS, TENANT_CHANGES
from models.events import CompletedStep, ProcessingCompleted, ProcessingCompletedData
from models.status import ImageProgress, ImageRow, ImageState, ImageStatusChanged
from models.tenants import ChangeKind, TenantChange, TenantChangeData
from tables import image_status, usage


def of_row(row: ImageRow) -> list[Message]:
    """Return what others are told of a row; at a picture's end that, too."""
    messages = [Message(STATUS, changed(row))]
    if row.status in {ImageState.COMPLETED, ImageState.PARTIAL}:
        messages.append(Message(COMPLETED, _completed(row)))
    return messages


def _completed(row: ImageRow) -> ProcessingCompleted:
    assert row.searchableAfter is not None, "a picture with a stored vector is searchable"
    return ProcessingCompleted.following(
        row,
        ProcessingCompletedData(
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
        eventId=image_status.completed_event_id(row),
    )


def _milliseconds(start: str, end: str) -> float:
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return round(seconds * 1000, 3)


def changed(row: ImageRow) -> ImageStatusChanged:
    """Return the event that carries a row."""
    return ImageStatusChanged.following(row, row, timestamp=row.lastUpdated)


def of_usage(row: ImageRow, event: ImageProgress) -> list[Message]:
    """Return what the registry of tenants is told of a picture that came or went."""
    counts = usage.counts(row, event)
    if not counts:
        return []
    data = TenantChangeData(kind=ChangeKind.COUNT.value, partition=event.place[0], counts=counts)
    return [Message(TENANT_CHANGES, TenantChange.new(row.tenantId, data))]


def together(messages: list[Message]) -> list[Message]:
    """Return fewer messages that say the same.

    Of each row the last that is told, and one count for each tenant and partition of the rows.
    """
    latest = {each.event.key: each for each in messages if each.topic is STATUS}
    kept: list[Message] = []
    by_place: dict[tuple[str, int | None], TenantChangeData] = {}
    for message in messages:
        event = message.event
        if message.topic is STATUS and latest[event.key] is not message:
            continue
        if isinstance(event, TenantChange) and event.data.counts:
            place = (event.tenantId, event.data.partition)
            if place in by_place:
                (by_place[place].counts or []).extend(event.data.counts)
                continue
            by_place[place] = event.data
        kept.append(message)
    return kept
