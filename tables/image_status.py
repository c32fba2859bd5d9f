"""The status table: image ID to everything known of the picture's way.

Fed by the progress topic alone, which has as many partitions as the table: Faust lets an agent
write only rows of the partition that it reads. Keys are bytes: with text, Faust's router hashes
the JSON-quoted key and asks the wrong worker.
"""

from typing import TYPE_CHECKING, Any

from deeplens_streams.topics import TABLE_PARTITIONS
from models.events import derived_id, utc_now
from models.status import (
    FINAL_RANK,
    FINAL_STATES,
    STEP_RANK,
    ImageProgress,
    ImageRow,
    ImageState,
    Step,
    StepReport,
    StepStatus,
)

if TYPE_CHECKING:
    import faust
    from faust.types import TableT

NAME = "image_status"

#: RocksDB's own defaults (a 2 GiB cache and 90 % of the file descriptors for each partition)
#: are meant for one database in a process; here there is one for each partition.
ROCKSDB_OPTIONS = {
    "block_cache_size": 16 * 1024 * 1024,
    "block_cache_compressed_size": 4 * 1024 * 1024,
    "write_buffer_size": 8 * 1024 * 1024,
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
    (generation, rank), and the whole picture's state follows from its steps.
    """
    data = event.data
    if row is not None:
        if row.status == ImageState.DELETED or event.generation < row.generation:
            return None
        if row.tenantId != event.tenantId:
            return None  # forged: an image belongs to the tenant that it was uploaded for
    restarted = row is None or event.generation > row.generation
    steps = {} if row is None else {(step.step, step.modelName): step for step in row.steps}
    changed = restarted
    for report in data.reports:
        key = (report.step, report.modelName)
        report.generation = event.generation
        if key not in steps or _order(report) > _order(steps[key]):
            steps[key] = report
            changed = True
    if not changed:
        return None
    ordered = sorted(steps.values(), key=lambda step: (_POSITION[step.step], step.modelName or ""))
    models = data.models or (row.models if row else [])
    uploaded_at = (row.uploadedAt if row else None) or data.uploadedAt or event.timestamp
    status = _state(steps, models)
    if row is not None and not restarted and row.status in FINAL_STATES:
        status = ImageState(row.status)
    failure = _failure(ordered)
    return ImageRow(
        imageId=data.imageId,
        tenantId=event.tenantId,
        correlationId=event.correlationId,
        uploadedAt=uploaded_at,
        models=models,
        status=status.value,
        generation=event.generation,
        steps=ordered,
        lastUpdated=utc_now(),
        searchableAfter=_searchable(ordered),
        errorCode=failure.errorCode if failure else None,
        errorMessage=failure.errorMessage if failure else None,
    )


def completed_event_id(row: ImageRow) -> str:
    """Return the ID of a row's completed event: a repeat is the same event."""
    return derived_id("completed", row.imageId, row.generation)


_POSITION = {step.value: index for index, step in enumerate(Step)}


def _order(report: StepReport) -> tuple[int, int, int]:
    return (report.generation, STEP_RANK[StepStatus(report.status)], report.attempt)


def _is_final(report: StepReport | None) -> bool:
    return report is not None and STEP_RANK[StepStatus(report.status)] >= FINAL_RANK


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
    return next((step for step in steps if _has_failed(step)), None)


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
