"""What an image's row says of its steps, and what state follows from them."""

from collections.abc import Iterable

from deeplens_streams.broker.topology import STEP_STAGES
from deeplens_streams.errors import MalformedEvent
from models.status import FINAL_RANK, ImageState, Step, StepReport, StepStatus, rank_of

#: The last report of each step, by step and model.
Steps = dict[tuple[str, str | None], StepReport]

#: Steps of newer versions, with each model, that a row keeps.
MAX_UNKNOWN_STEPS = 64
_POSITION = {step.value: index for index, step in enumerate(Step)}
#: Steps that have a stage: those that are taken once, and those that are for each model.
_ONCE = tuple(step for step, stage in STEP_STAGES.items() if not stage.by_model)
_BY_MODEL = tuple(step for step, stage in STEP_STAGES.items() if stage.by_model)
#: Steps that a stage takes on its way: nothing is behind them.
_ASIDE = tuple(step for step in Step if step not in STEP_STAGES)


def steps_of(reports: Iterable[StepReport]) -> Steps:
    return {(each.step, each.modelName): each for each in reports}


def ordered(steps: Steps) -> list[StepReport]:
    """Return reports in pipeline order, those of unknown steps behind them.

    Raises
    ------
    MalformedEvent
        There are too many unknown ones: a row does not grow without end by what nobody here knows.
    """
    found = sorted(steps.values(), key=_position)
    if sum(each.step not in _POSITION for each in found) > MAX_UNKNOWN_STEPS:
        raise MalformedEvent("The message reports one more of too many unknown steps.")
    return found


def _position(report: StepReport) -> tuple[int, str, str]:
    """Return what reports are ordered by: in pipeline order, unknown steps behind them."""
    return (_POSITION.get(report.step, len(_POSITION)), report.step, report.modelName or "")


def _order(report: StepReport) -> tuple[int, int, str, int]:
    # Why a step waits may change, and after a crash its attempts begin anew. What is at its end
    # stays as it was first said.
    rank = rank_of(report.status)
    said_at = report.at if rank == rank_of(StepStatus.RETRYING) else ""
    return (report.generation, rank, said_at, report.attempt)


def says_more(report: StepReport, known: StepReport | None, *, ended: bool) -> bool:
    """Tell whether a report takes the place of the known one.

    A failure at which the row ended stays, with its reason: an event may succeed when it comes
    again, because of a crash, and only a retry opens what is at its end.
    """
    if known is None:
        return True
    return not (ended and _has_failed(known)) and _order(report) > _order(known)


def of_this_run(steps: Steps) -> Steps:
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
            and other.step not in _ASIDE
            for other in steps.values()
        )
    }


def _is_final(report: StepReport | None) -> bool:
    return report is not None and rank_of(report.status) >= FINAL_RANK


def _has_failed(report: StepReport | None) -> bool:
    return report is not None and report.status == StepStatus.FAILED


def state_of(steps: Steps, models: list[str]) -> ImageState:
    """Return the picture's state as its steps have it."""
    if any(_has_failed(steps.get((step, None))) for step in _ONCE):
        return ImageState.FAILED
    stored = failed = 0
    for model in models:
        reports = [steps.get((step, model)) for step in _BY_MODEL]
        if any(map(_has_failed, reports)):
            failed += 1
        elif all(map(_is_final, reports)):
            stored += 1
    if not models or stored + failed < len(models):
        return ImageState.PROCESSING
    if not stored:
        return ImageState.FAILED
    # The end is announced once, so every step's report has to be in.
    if not all(_is_final(steps.get((step, None))) for step in (*_ONCE, *_ASIDE)):
        return ImageState.PROCESSING
    return ImageState.PARTIAL if failed else ImageState.COMPLETED


def first_failure(steps: list[StepReport]) -> StepReport | None:
    """Return the report of the first known step that failed."""
    return next((step for step in steps if _has_failed(step) and step.step in _POSITION), None)


def searchable_after(steps: list[StepReport]) -> str | None:
    """Return when the first vector was stored."""
    return min(
        (
            step.at
            for step in steps
            if step.step == Step.VECTOR_INDEXING and step.status == StepStatus.COMPLETED
        ),
        default=None,
    )
