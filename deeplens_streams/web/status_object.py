"""The status object, which the endpoint and the websocket share."""

from datetime import UTC, datetime
from typing import Any, Final

from deeplens_streams.broker.topology import STEP_STAGES
from deeplens_streams.status.estimates import Estimates
from deeplens_streams.status.outages import Key, Outages
from deeplens_streams.timestamps import parse_time
from models.status import (
    FINAL_RANK,
    FINAL_STATES,
    ImageRow,
    ImageState,
    Step,
    StepReport,
    StepStatus,
    rank_of,
)

_MESSAGES: Final[dict[str, str]] = {
    ImageState.UPLOADED: "The picture is stored and waits for processing.",
    ImageState.PROCESSING: "The picture is being processed.",
    ImageState.COMPLETED: "The picture can be found by search.",
    ImageState.PARTIAL: "The picture can be found by search with some of its models.",
    ImageState.FAILED: "The picture could not be processed.",
    ImageState.DELETED: "The picture was deleted.",
}
_STEPS: Final = frozenset(Step)
_STATUSES: Final = frozenset(StepStatus)
_PER_MODEL: Final = frozenset(step for step, stage in STEP_STAGES.items() if stage.by_model)


def shown_state(row: ImageRow) -> str:
    """Return a row's state in the contract's words; one of a newer version is on its way."""
    return row.status if row.status in _MESSAGES else ImageState.PROCESSING


def status_object(row: ImageRow, estimates: Estimates, outages: Outages) -> dict[str, Any]:
    """Return the contract's status object."""
    is_final = row.status in FINAL_STATES
    steps = _steps(row, {} if is_final else outages.reasons(row), is_final)
    done = sum(rank_of(step["status"]) >= FINAL_RANK for step in steps)
    state = shown_state(row)
    return {
        "success": True,
        "message": _MESSAGES[state],
        "imageId": row.imageId,
        "tenantId": row.tenantId,
        "status": state,
        "processingSteps": steps,
        "otherSteps": [
            _shown(each, each.modelName) for each in row.steps if each.step not in _STEPS
        ],
        "percentComplete": 100 if is_final else min(99, round(100 * done / len(steps))),
        "estimatedTimeRemainingSeconds": 0 if is_final else _remaining(row, estimates),
        "searchableAfter": row.searchableAfter,
        "lastUpdated": row.lastUpdated,
        "uploadedAt": row.uploadedAt,
        "correlationId": row.correlationId,
        "errorCode": row.errorCode,
        "errorMessage": row.errorMessage,
    }


def _steps(row: ImageRow, reasons: dict[Key, str], is_final: bool) -> list[dict[str, Any]]:
    """Return every step that the image goes through, in pipeline order.

    `reasons` are why steps wait that were not begun.
    """
    reports = {(report.step, report.modelName): report for report in row.steps}
    # In an image at its end, a step that nobody reported will not be taken any more.
    unreported = StepStatus.SKIPPED if is_final else StepStatus.PENDING
    steps = []
    for step in Step:
        for model in row.models if step in _PER_MODEL else (None,):
            report, reason = reports.get((step, model)), reasons.get((step, model))
            report = report or StepReport(step=step, status=unreported, attempt=0)
            shown = _shown(report, model)
            if reason is not None:
                shown |= {"status": StepStatus.RETRYING, "errorMessage": reason}
            steps.append(shown)
    return steps


def _shown(report: StepReport, model: str | None) -> dict[str, Any]:
    """Return a step of the answer; a status that is not known here is one on its way."""
    return {
        "step": report.step,
        "status": report.status if report.status in _STATUSES else StepStatus.IN_PROGRESS,
        "duration": report.duration,
        "attempt": report.attempt,
        "modelName": model,
        "collectionName": report.collectionName,
        "errorMessage": report.errorMessage,
    }


def _remaining(row: ImageRow, estimates: Estimates) -> float | None:
    begun = parse_time(row.uploadedAt)
    if begun is None:
        return None
    return estimates.remaining(max(0.0, (datetime.now(UTC) - begun).total_seconds()))
