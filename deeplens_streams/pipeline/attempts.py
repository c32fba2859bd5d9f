"""Attempts at one message: read it, have it processed, and say what came of it."""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Message
from deeplens_streams.errors import BrokerUnavailable, DeepLensError, DependencyUnavailable
from deeplens_streams.metrics import ATTEMPTS, EVENTS, STAGE_SECONDS, UNEXPECTED
from deeplens_streams.pipeline import dead_letters
from deeplens_streams.pipeline.dead_letters import Incoming
from models.events import Event, RetryPolicy
from models.status import ImageProgress, StepStatus
from tables.lanes import NotNow

if TYPE_CHECKING:
    from deeplens_streams.pipeline.stage import Stage

log = structlog.get_logger()

E = TypeVar("E", bound=Event)

#: For events that bring no policy of their own.
POLICY = RetryPolicy()
#: Nobody's policy may hold an event for longer than this between two attempts, or try more often.
MAX_BACKOFF_S, MAX_ATTEMPTS = 60.0, 10


class Work(Generic[E]):
    """One message on its way through a stage."""

    def __init__(self, stage: "Stage[E]", incoming: Incoming) -> None:
        self.stage, self.incoming = stage, incoming
        self._event: E | None = None
        self._attempt = 0
        self._policy = POLICY
        self._started = time.perf_counter()

    async def attempt(self) -> list[Message] | None:
        """Return what is to be sent, after which the message is at its end.

        None means that the event's own attempt failed and there is to be another one.
        """
        try:
            return await self._tried()
        except NotNow:
            raise
        except Exception as error:
            return self._broken(error)

    async def _tried(self) -> list[Message] | None:
        structlog.contextvars.clear_contextvars()
        if self._event is None:
            try:
                event = codec.decode(self.stage.record, self.incoming.value)
            except DeepLensError as error:
                self._count("unreadable")
                return [dead_letters.unreadable(self.stage.name, self.incoming, error)]
            event.place = (self.incoming.message.partition, self.incoming.message.offset)
            self._event = event
            self._policy = getattr(event, "retryPolicy", None) or POLICY
        event = self._event
        structlog.contextvars.bind_contextvars(
            correlation_id=event.correlationId, tenant=event.tenantId, image_id=event.image_id
        )
        self._attempt += 1
        try:
            results = await self.stage.breakers.wait_until_available(
                partial(self.stage.process, event), self._waits, give_up_if_ours=True
            )
        except NotNow:
            self._attempt -= 1
            raise
        except Exception as error:
            return await self._failed(event, error)
        ATTEMPTS.labels(self.stage.name, "done").inc()
        self._count("done")
        return _with_attempt(results, self._attempt)

    async def next_attempt(self) -> list[Message] | None:
        """Wait as the event's policy says, and try again."""
        backoff = self._policy.backoffMs / 1000 * 2 ** (self._attempt - 1)
        await asyncio.sleep(min(max(backoff, 0.0), MAX_BACKOFF_S))
        return await self.attempt()

    async def _failed(self, event: E, error: Exception) -> list[Message] | None:
        stage, attempt = self.stage, self._attempt
        known = dead_letters.known_error(error)
        if known is not error:  # whose stack trace is in its letter
            UNEXPECTED.labels(stage.name).inc()
        final = isinstance(error, DeepLensError) and not error.retryable
        if not final and attempt < min(self._policy.maxAttempts, MAX_ATTEMPTS):
            ATTEMPTS.labels(stage.name, "again").inc()
            log.warning("attempt failed", stage=stage.name, attempt=attempt, error=repr(error))
            await self._report(event, known)
            return None
        ATTEMPTS.labels(stage.name, "given_up").inc()
        self._count("failed")
        return self._letter(event, error)

    def unsent(self, error: Exception) -> list[Message]:
        """Return what is sent instead of results that cannot be."""
        if self._event is None:
            return self._broken(error)
        if dead_letters.known_error(error) is not error:
            UNEXPECTED.labels(self.stage.name).inc()
        return self._letter(self._event, error)

    def _letter(self, event: E, error: Exception) -> list[Message]:
        stage, known = self.stage, dead_letters.known_error(error)
        letter = dead_letters.dead_letter(stage.name, event, error, self._attempt, self.incoming)
        return [letter, *stage.report_failure(event, StepStatus.FAILED, known, self._attempt)]

    def _broken(self, error: Exception) -> list[Message]:
        """Return the letter of a message that a mistake of the stage's own cannot handle."""
        known = dead_letters.known_error(error)
        if known is not error:
            UNEXPECTED.labels(self.stage.name).inc()
            known.__cause__ = error  # for the letter's stack trace
        if self._event is not None:
            try:
                return self._letter(self._event, error)
            except Exception:
                log.exception("an event is kept as its bytes alone", stage=self.stage.name)
        return [dead_letters.unreadable(self.stage.name, self.incoming, known)]

    async def _waits(self, error: DependencyUnavailable) -> None:
        if self._event is not None:
            await self._report(self._event, error)

    async def _report(self, event: E, error: DeepLensError) -> None:
        """Say that the event is waiting; where that cannot be said, it waits all the same."""
        stage = self.stage
        try:
            messages = stage.report_failure(event, StepStatus.RETRYING, error, self._attempt)
            if messages and not stage.breakers[BrokerUnavailable.dependency].reason:
                await stage.publish(*messages)
        except BrokerUnavailable as broker:
            stage.breakers[broker.dependency].note(broker)
        except Exception:
            UNEXPECTED.labels(stage.name).inc()
            log.exception("that an event waits cannot be said", stage=stage.name)

    def _count(self, result: str) -> None:
        EVENTS.labels(self.stage.name, result).inc()
        STAGE_SECONDS.labels(self.stage.name).observe(time.perf_counter() - self._started)


def _with_attempt(results: list[Message], attempt: int) -> list[Message]:
    """Have reports say at which attempt the step succeeded."""
    if attempt > 1:
        for message in results:
            if isinstance(message.event, ImageProgress):
                for report in message.event.data.reports:
                    report.attempt = attempt
    return results
