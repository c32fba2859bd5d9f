"""The status table: image ID to everything known of the picture's way.

Fed by the progress topic alone, which has as many partitions as the table: Faust lets an agent
write only rows of the partition that it reads. Keys are bytes: with text, Faust's router hashes
the JSON-quoted key and asks the wrong worker.
"""

import re
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from deeplens_streams.broker.topology import STATUS_TABLE, TABLE_PARTITIONS
from deeplens_streams.errors import MalformedEvent, NewerVersion
from models.events import derived_id
from models.status import (
    FINAL_STATES,
    Ending,
    ImageProgress,
    ImageProgressData,
    ImageRow,
    ImageState,
    StepReport,
)
from tables import usage
from tables.image_steps import (
    Steps,
    first_failure,
    of_this_run,
    ordered,
    says_more,
    searchable_after,
    state_of,
    steps_of,
)

if TYPE_CHECKING:
    import faust
    from faust.types import TableT

NAME = STATUS_TABLE

#: RocksDB's own defaults (a 2 GiB cache and 90 % of the file descriptors for each partition)
#: are meant for one database in a process; here there is one for each partition.
ROCKSDB_OPTIONS = {
    "block_cache_size": 512 * 1024,
    "block_cache_compressed_size": 128 * 1024,
    "write_buffer_size": 256 * 1024,
    "max_write_buffer_number": 2,
    "max_open_files": 128,
}

#: What a step or a status may be called, in whatever version.
_NAME = re.compile("[a-z][a-z0-9_]{0,59}")
_STATES = frozenset(state.value for state in ImageState)


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


def joined(row: ImageRow | None, event: ImageProgress, *, now: str) -> ImageRow | None:
    """Return the row with what `event` reports, or None if it says nothing new.

    Neither is changed, and the same three make the same row.

    The order of reports does not matter: each step keeps the report of the highest
    (generation, rank), the latest one of those that say why it waits, and the whole picture's
    state follows from its steps.

    Steps of a newer version are kept behind those that are known here, and decide nothing; its
    states stay until the steps that are known come to an end.

    Parameters
    ----------
    now : ISO-8601 UTC, of when the row is written.

    Raises
    ------
    MalformedEvent
        A report is of what cannot be a step, or of too many steps that are not known.
    NewerVersion
        It ends in a way that is not known.
    """
    data = event.data
    _check(data)
    if row is not None and row.tenantId != event.tenantId:
        return None  # forged: an image belongs to the tenant that it was uploaded for
    if row is not None and row.status == ImageState.DELETED:
        return None
    if data.ending is not None:
        return _ended(row, event, now)
    if row is not None and event.generation < row.generation:
        return None
    restarted = row is None or event.generation > row.generation
    ended = row is not None and not restarted and row.status in FINAL_STATES
    steps = steps_of(row.steps if row else [])
    # An audit has a picture count of which nobody had said how large it is.
    changed = restarted or (row is not None and row.countedAt is None and data.fileSize is not None)
    for told in data.reports:
        report = _of_generation(told, event.generation)
        key = (report.step, report.modelName)
        if says_more(report, steps.get(key), ended=ended):
            steps[key] = report
            changed = True
    if not changed:
        return None
    following = _with_steps(row, event, of_this_run(steps), now)
    if row is not None and not restarted and (ended or _stays(row, following.status)):
        following.status = row.status
    usage.count(following, event, before=row)
    return following.succeeding(row)


def _with_steps(row: ImageRow | None, event: ImageProgress, steps: Steps, now: str) -> ImageRow:
    """Return the row that follows from steps, whatever is said of the image beside them."""
    data, reports = event.data, ordered(steps)
    models = data.models or (row.models if row else [])
    failure = first_failure(reports)
    return ImageRow(
        imageId=data.imageId,
        tenantId=event.tenantId,
        correlationId=event.correlationId,
        uploadedAt=row.uploadedAt if row else _uploaded_at(event, now),
        models=models,
        status=state_of(steps, models).value,
        generation=event.generation,
        steps=reports,
        lastUpdated=now,
        searchableAfter=searchable_after(reports),
        errorCode=failure.errorCode if failure else None,
        errorMessage=failure.errorMessage if failure else None,
    )


def _of_generation(report: StepReport, generation: int) -> StepReport:
    """Return a report as one of the run that its event is of, whatever it says itself."""
    if report.generation == generation:
        return report
    return StepReport.from_wire(report.to_wire() | {"generation": generation})


def _check(data: ImageProgressData) -> None:
    if data.ending is not None and data.ending not in set(Ending):
        raise NewerVersion(f"This version knows no end {data.ending[:40]!r} of an image's row.")
    for report in data.reports:
        if not (_NAME.fullmatch(report.step) and _NAME.fullmatch(report.status)):
            raise MalformedEvent("The message reports a step or a status that is none.")


def _stays(row: ImageRow, status: str) -> bool:
    """Tell whether a row keeps its state, as one of a newer version's, though it had `status` now.

    It does until the steps that are known come to their end; behind that, too, if it came then.
    """
    if row.status in _STATES:
        return False
    return status not in FINAL_STATES or state_of(steps_of(row.steps), row.models) in FINAL_STATES


def _ended(row: ImageRow | None, event: ImageProgress, now: str) -> ImageRow | None:
    """Return the row of a picture that is no more: nothing of it but that."""
    if row is None and event.data.ending != Ending.DELETED:
        return None
    ended = ImageRow(
        imageId=event.data.imageId,
        tenantId=event.tenantId,
        correlationId=event.correlationId,
        uploadedAt=row.uploadedAt if row else _uploaded_at(event, now),
        models=[],
        status=ImageState.DELETED.value,
        generation=row.generation if row else event.generation,
        steps=[],
        lastUpdated=now,
        ending=event.data.ending,
    )
    # Nor of what only a newer version knows of it: what has to stay belongs into the tombstone.
    usage.uncount(ended, event, before=row)
    return ended


def _uploaded_at(event: ImageProgress, now: str) -> str:
    """Return when its picture was uploaded, as far as the event tells: always a time."""
    for text in (event.data.uploadedAt, event.timestamp):
        with suppress(ValueError):
            if text and datetime.fromisoformat(text).tzinfo is not None:
                return text
    return now


def completed_event_id(row: ImageRow) -> str:
    """Return the ID of a row's completed event: a repeat is the same event."""
    return derived_id("completed", row.imageId, row.generation)
