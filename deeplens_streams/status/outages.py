"""What pictures wait for at present, learnt from those that a stage has in hand.

A stage says of these alone that they wait, and says it again every minute. Those behind them
wait for the same.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from deeplens_streams import errors
from deeplens_streams.broker.topology import STEP_STAGES
from deeplens_streams.circuit_breaker import REMIND_S
from deeplens_streams.errors import DependencyUnavailable
from models.status import ImageRow, StepStatus

#: Seconds without news after which an outage is over: its pictures may all have been deleted.
FORGET_S: Final = 3 * REMIND_S

#: Sentences by the code of a dependency that is away. What a stage says itself may name a tenant.
_REASONS: Final = {
    each.code: each().message
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, DependencyUnavailable)
}
_ENDS: Final = frozenset({StepStatus.COMPLETED.value, StepStatus.FAILED.value})

#: The steps that stages take, in order: those of all models together come first.
_ONCE: Final = tuple(step.value for step, each in STEP_STAGES.items() if not each.by_model)
_BY_MODEL: Final = tuple(step.value for step, each in STEP_STAGES.items() if each.by_model)

#: A step and its model; None for a step that is done once for all models.
Key = tuple[str, str | None]


@dataclass(slots=True)
class _Outage:
    """`at` is when it was said last, by the stage's clock; `heard` by this process's."""

    reason: str
    at: str
    heard: float


class Outages:
    """Steps that wait because a dependency is away, each with the reason.

    Attributes
    ----------
    are_any : whether there may be one, so that every row is of interest.
    """

    def __init__(self) -> None:
        self.are_any = False
        self._all: dict[Key, _Outage] = {}
        #: When a step was last told to be done: rows of other partitions may come later.
        self._ended: dict[Key, str] = {}

    def look(self, row: dict[str, Any]) -> None:
        """Learn from a row as it stands on the wire.

        Raises
        ------
        KeyError, TypeError, AttributeError
            It is none.
        """
        for step in row["steps"]:
            key, status, at = (step["step"], step.get("modelName")), step["status"], step.get("at")
            known = self._all.get(key)
            if known is not None and at <= known.at:
                continue  # a row that changed elsewhere
            if status == StepStatus.RETRYING:
                reason = _REASONS.get(step.get("errorCode"))
                if reason is not None and at > self._ended.get(key, ""):
                    self._all[key] = _Outage(reason, at, time.monotonic())
                    self.are_any = True
            elif known is not None and status in _ENDS:
                self._ended[key] = at
                self._forget(key)

    def reasons(self, row: ImageRow) -> dict[Key, str]:
        """Return why the steps wait that a picture comes to next."""
        if not self.are_any:
            return {}
        found = {key: self._reason(key) for key in _next_steps(row)}
        return {key: reason for key, reason in found.items() if reason is not None}

    def _reason(self, key: Key) -> str | None:
        outage = self._all.get(key)
        if outage is None:
            return None
        if time.monotonic() - outage.heard >= FORGET_S:
            self._forget(key)
            return None
        return outage.reason

    def _forget(self, key: Key) -> None:
        del self._all[key]
        self.are_any = bool(self._all)


def _next_steps(row: ImageRow) -> Iterator[Key]:
    """Yield the steps that are next and of which nothing is reported yet.

    A retry reports that the first one of its steps is pending.
    """
    said = {(step.step, step.modelName): step.status for step in row.steps}

    def status(key: Key) -> str:
        return said.get(key, StepStatus.PENDING.value)

    def ahead(steps: tuple[str, ...], model: str | None) -> Key | None:
        """Return the first that is not done."""
        keys = ((step, model) for step in steps)
        return next((key for key in keys if status(key) != StepStatus.COMPLETED), None)

    first = ahead(_ONCE, None)
    for key in [first] if first else [ahead(_BY_MODEL, model) for model in row.models]:
        if key is not None and status(key) == StepStatus.PENDING:
            yield key
