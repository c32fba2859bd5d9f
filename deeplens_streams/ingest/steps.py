"""Steps that are done in order, and undone in reverse when one of them fails."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from deeplens_streams.circuit_breaker import Breakers, was_refused
from deeplens_streams.ingest.background import BackgroundTasks
from deeplens_streams.storage.blobs.store import AlreadyThere

log = structlog.get_logger()


async def nothing() -> None:
    """Undo a step that leaves nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: how it is done, and how what it left, or may have, is taken back.

    Attributes
    ----------
    do : one call of a dependency: refused by its breaker, the step has left nothing.
    undo : may be called again where a dependency was away. Where it fails, those before it stay
        done: bytes stay as long as the metadata object that names them.
    """

    do: Callable[[], Awaitable[None]]
    undo: Callable[[], Awaitable[None]] = nothing


class StepRunner:
    """Runs steps; undoing them goes on behind the answer while a dependency is away."""

    def __init__(self, breakers: Breakers, background: BackgroundTasks) -> None:
        self._breakers, self._background = breakers, background

    async def run(self, steps: Sequence[Step], *, patience_s: float, **about: str) -> None:
        """Do all `steps`, or leave nothing of them.

        Parameters
        ----------
        patience_s : seconds for which a failure waits for the undoing.
        about : names what the steps are for, in the log.
        """
        begun: list[Step] = []
        try:
            for step in steps:
                begun.append(step)
                await step.do()
        except BaseException as error:  # a cancelled request leaves nothing, either
            if _did_nothing(error):
                begun.pop()
            undoing = self._background.start(self._undo(begun, about))
            await asyncio.wait({undoing}, timeout=patience_s)
            raise

    async def _undo(self, begun: Sequence[Step], about: dict[str, str]) -> None:
        try:
            for step in reversed(begun):
                await self._breakers.wait_until_available(step.undo)
        except Exception:
            log.exception("refused upload left behind", **about)


def _did_nothing(error: BaseException) -> bool:
    """Tell whether a step failed before it changed anything; else it may have, whatever it says."""
    return was_refused(error) or isinstance(error, AlreadyThere)
