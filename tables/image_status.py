"""The status table: image ID to everything known of the picture's way.

Fed by the progress topic alone, which has as many partitions as the table: Faust lets an agent
write only rows of the partition that it reads. Keys are bytes: with text, Faust's router hashes
the JSON-quoted key and asks the wrong worker.
"""

import re
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from deeplens_streams.errors import MalformedEvent, NewerVersion
from deeplens_streams.topics import TABLE_PARTITIONS
from models.events import derived_id, utc_now
from models.status import (
    FINAL_RANK,
    FINAL_STATES,
    Ending,
    ImageProgress,
    ImageProgressData,
    ImageRow,
    ImageState,
    Step,
    StepReport,
    StepStatus,
    rank_of,
)
from models.tenants import Count

if TYPE_CHECKING:
    import faust
    from faust.types import TableT

NAME = "image_status"

#: RocksDB's own defaults (a 2 GiB cache and 90 % of the file descriptors for each partition)
#: are meant for one database in a process; here there is one for each partition.
ROCKSDB_OPTIONS = {
    "block_cache_size": 512 * 1024,
    "block_cache_compressed_size": 128 * 1024,
    "write_buffer_size": 256 * 1024,
    "max_write_buffer_number": 2,
    "max_open_files": 128,
}


def register(app: "faust.App") -> "TableT[Any, Any]":
    """Declare the table on the api role's app."""
    return app.Table(
        NAME,
        key_type=bytes,
        value_type=ImageRow,
        partitions=TABLE_PARTITIONS,
        options=ROCKSDB_OPTIONS,
        help="Where each picture is on its way",
    )


def joined(row: ImageRow | None, event: ImageProgress) -> ImageRow | None:
    """Return the row with what `event` reports, or None if it says nothing new.

    The order of reports does not matter: each step keeps the report of the highest
    (generation, rank), the latest one of those that say why it waits, and the whole picture's
    state follows from its steps.

    Steps of a newer version are kept behind those that are known here, and decide nothing; its
    states stay until the steps that are known come to an end.

    Raises
    ------
    MalformedEvent
        A report is of what cannot be a step, or of too many steps that are not known.
    NewerVersion
        It ends in a way that is not known.
    """
    data = event.data
    _check(data)
    if row is not None:
        if row.tenantId != event.tenantId:
            return None  # forged: an image belongs to the tenant that it was uploaded for
        if row.status == ImageState.DELETED:
            return None
    if data.ending is not None:
        return _ended(row, event)
    if row is not None and event.generation < row.generation:
        return None
    restarted = row is None or event.generation > row.generation
    ended = row is not None and not restarted and row.status in FINAL_STATES
    steps = {} if row is None else {(step.step, step.modelName): step for step in row.steps}
    # An audit has a picture count of which nobody had said how large it is.
    changed = restarted or (row is not None and row.countedAt is None and data.fileSize is not None)
    for report in data.reports:
        key = (report.step, report.modelName)
        report.generation = event.generation
        if _says_more(report, steps.get(key), ended=ended):
            steps[key] = report
            changed = True
    if not changed:
        return None
    steps = _of_this_run(steps)
    ordered = sorted(steps.values(), key=_position)
    _check_unknown(ordered)
    models = data.models or (row.models if row else [])
    status = _state(steps, models).value
    if row is not None and not restarted and (ended or _stays(row, status)):
        status = row.status
    failure = _failure(ordered)
    return _with_size(
        row,
        event,
        ImageRow(
            imageId=data.imageId,
            tenantId=event.tenantId,
            correlationId=event.correlationId,
            uploadedAt=row.uploadedAt if row else _uploaded_at(event),
            models=models,
            status=status,
            generation=event.generation,
            steps=ordered,
            lastUpdated=utc_now(),
            searchableAfter=_searchable(ordered),
            errorCode=failure.errorCode if failure else None,
            errorMessage=failure.errorMessage if failure else None,
        ).succeeding(row),
    )


def _check(data: ImageProgressData) -> None:
    if data.ending is not None and data.ending not in set(Ending):
        raise NewerVersion(f"This version knows no end {data.ending[:40]!r} of an image's row.")
    for report in data.reports:
        if not (_NAME.fullmatch(report.step) and _NAME.fullmatch(report.status)):
            raise MalformedEvent("The message reports a step or a status that is none.")


def _check_unknown(steps: list[StepReport]) -> None:
    """Keep a row from growing without end by what nobody here knows."""
    unknown = [step for step in steps if step.step not in _POSITION]
    if len(unknown) > MAX_UNKNOWN_STEPS:
        raise MalformedEvent("The message reports one more of too many unknown steps.")


def _stays(row: ImageRow, status: str) -> bool:
    """Tell whether a row keeps its state, as one of a newer version's, though it had `status` now.

    It does until the steps that are known come to their end; behind that, too, if it came then.
    """
    if row.status in _STATES:
        return False
    steps = {(step.step, step.modelName): step for step in row.steps}
    return status not in FINAL_STATES or _state(steps, row.models) in FINAL_STATES


def _ended(row: ImageRow | None, event: ImageProgress) -> ImageRow | None:
    """Return the row of a picture that is no more: nothing of it but that."""
    if row is None and event.data.ending != Ending.DELETED:
        return None
    ended = ImageRow(
        imageId=event.data.imageId,
        tenantId=event.tenantId,
        correlationId=event.correlationId,
        uploadedAt=row.uploadedAt if row else _uploaded_at(event),
        models=[],
        status=ImageState.DELETED.value,
        generation=row.generation if row else event.generation,
        steps=[],
        lastUpdated=utc_now(),
    )
    # Nor of what only a newer version knows of it: what has to stay belongs into the tombstone.
    if row is not None:
        ended.fileSize, ended.lease, ended.countedAt = row.fileSize, row.lease, row.countedAt
    if ended.countedAt is None:  # it will never count, and only its room is free again
        ended.fileSize, ended.lease = event.data.fileSize, event.data.lease
    ended.uncountedAt = event.place[1]
    return ended


def _with_size(before: ImageRow | None, event: ImageProgress, row: ImageRow) -> ImageRow:
    """Have the row say from where on its picture counts for its tenant."""
    if before is not None and before.countedAt is not None:
        row.fileSize, row.lease, row.countedAt = before.fileSize, before.lease, before.countedAt
    elif event.data.fileSize is not None:
        row.fileSize, row.lease = event.data.fileSize, event.data.lease
        row.countedAt = event.place[1]
    return row


def counts(row: ImageRow, event: ImageProgress) -> list[Count]:
    """Return what `event` means for the tenant's usage; the same each time it is read."""
    size, offset = row.fileSize, event.place[1]
    if size is None:
        return []
    count = Count(offset=offset, images=0, bytes=0)
    if offset == row.countedAt:
        count.images, count.bytes = 1, size
    elif offset != row.uncountedAt:
        return []
    elif row.countedAt is not None:
        count.images, count.bytes = -1, -size
        return [count]
    elif row.lease is None:
        return []
    count.lease, count.leaseImages, count.leaseBytes = row.lease, 1, size
    return [count]


def _uploaded_at(event: ImageProgress) -> str:
    """Return when its picture was uploaded, as far as the event tells: always a time."""
    for text in (event.data.uploadedAt, event.timestamp):
        with suppress(ValueError):
            if text and datetime.fromisoformat(text).tzinfo is not None:
                return text
    return utc_now()


def completed_event_id(row: ImageRow) -> str:
    """Return the ID of a row's completed event: a repeat is the same event."""
    return derived_id("completed", row.imageId, row.generation)


#: What a step or a status may be called, in whatever version.
_NAME = re.compile("[a-z][a-z0-9_]{0,59}")
#: Steps of newer versions, with each model, that a row keeps.
MAX_UNKNOWN_STEPS = 64
_STATES = frozenset(state.value for state in ImageState)
_POSITION = {step.value: index for index, step in enumerate(Step)}


def _position(report: StepReport) -> tuple[int, str, str]:
    """Return what reports are ordered by: in pipeline order, unknown steps behind them."""
    return (_POSITION.get(report.step, len(_POSITION)), report.step, report.modelName or "")


def _order(report: StepReport) -> tuple[int, int, str, int]:
    # Why a step waits may change, and after a crash its attempts begin anew. What is at its end
    # stays as it was first said.
    rank = rank_of(report.status)
    said_at = report.at if rank == rank_of(StepStatus.RETRYING) else ""
    return (report.generation, rank, said_at, report.attempt)


def _says_more(report: StepReport, known: StepReport | None, *, ended: bool) -> bool:
    """Tell whether a report takes the place of the known one.

    A failure at which the row ended stays, with its reason: an event may succeed when it comes
    again, because of a crash, and only a retry opens what is at its end.
    """
    if known is None:
        return True
    return not (ended and _has_failed(known)) and _order(report) > _order(known)


def _of_this_run(
    steps: dict[tuple[str, str | None], StepReport],
) -> dict[tuple[str, str | None], StepReport]:
    """Leave out what an earlier generation said of steps that a later one comes to again.

    A step that is taken again brings all behind it: what they said before would end the row
    while they are still under way, or have it fail for what is being mended. Nobody here knows what
    an unknown step comes before or behind, so those stay.
    """
    return {
        (step, model): report
        for (step, model), report in steps.items()
        if step not in _POSITION
        or not any(
            other.generation > report.generation
            and _POSITION.get(other.step, len(_POSITION)) < _POSITION[step]
            and other.modelName in (None, model)
            and other.step != Step.THUMBNAIL_GENERATION
            for other in steps.values()
        )
    }


def _is_final(report: StepReport | None) -> bool:
    return report is not None and rank_of(report.status) >= FINAL_RANK


def _has_failed(report: StepReport | None) -> bool:
    return report is not None and report.status == StepStatus.FAILED


def _state(steps: dict[tuple[str, str | None], StepReport], models: list[str]) -> ImageState:
    """Return the picture's state as its steps have it."""
    preparation = steps.get((Step.IMAGE_PROCESSING, None))
    if _has_failed(preparation):
        return ImageState.FAILED
    stored = failed = 0
    for model in models:
        extraction = steps.get((Step.FEATURE_EXTRACTION, model))
        indexing = steps.get((Step.VECTOR_INDEXING, model))
        if _has_failed(extraction) or _has_failed(indexing):
            failed += 1
        elif _is_final(extraction) and _is_final(indexing):
            stored += 1
    if not models or stored + failed < len(models):
        return ImageState.PROCESSING
    if not stored:
        return ImageState.FAILED
    # The end is announced once, so every step's report has to be in.
    thumbnail = steps.get((Step.THUMBNAIL_GENERATION, None))
    if not (_is_final(preparation) and _is_final(thumbnail)):
        return ImageState.PROCESSING
    return ImageState.PARTIAL if failed else ImageState.COMPLETED


def _failure(steps: list[StepReport]) -> StepReport | None:
    return next((step for step in steps if _has_failed(step) and step.step in _POSITION), None)


def _searchable(steps: list[StepReport]) -> str | None:
    """Return when the first vector was stored."""
    return min(
        (
            step.at
            for step in steps
            if step.step == Step.VECTOR_INDEXING and step.status == StepStatus.COMPLETED
        ),
        default=None,
    )
