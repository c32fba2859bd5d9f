"""The loop that every agent runs: decode, process, send, and let no exception out.

Faust acknowledges an event whose agent raised or was cancelled, so leaving the loop loses the
event. Here an event is acknowledged after its results are in Kafka: what `process` returned and
what it wrote to a table, or a dead letter that says why there is none.

A dependency that is away is waited for behind its circuit breaker, and no attempt is spent. An
event whose own attempt failed waits for the next one aside, and those behind it go on.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import structlog

from deeplens_streams.broker import codec
from deeplens_streams.broker.faust_transport import set_current_event
from deeplens_streams.broker.topics import Message, Publish
from deeplens_streams.circuit_breaker import Breakers
from deeplens_streams.errors import BrokerUnavailable, DeepLensError, DependencyUnavailable
from deeplens_streams.lanes import Lanes, NotNow
from deeplens_streams.metrics import ATTEMPTS, EVENTS, POSTPONED, STAGE_SECONDS
from deeplens_streams.pipeline import dead_letters
from deeplens_streams.pipeline.dead_letters import Incoming
from models.events import Event, RetryPolicy
from models.status import ImageProgress, StepStatus

log = structlog.get_logger()

E = TypeVar("E", bound=Event)
T = TypeVar("T")

#: For events that bring no policy of their own.
POLICY = RetryPolicy()
#: Nobody's policy may hold an event for longer than this between two attempts, or try more often.
MAX_BACKOFF_S, MAX_ATTEMPTS = 60.0, 10
#: Events of one actor that wait for their next attempt; with more, the actor waits with them.
MAX_POSTPONED = 64
#: Seconds before what a mistake in this file broke is tried again.
MISTAKE_WAIT_S = 15.0


#: What a stage says of an event that is retrying or has failed, with the reason and the attempt.
Tell = Callable[[Any, StepStatus, DeepLensError, int], list[Message]]


async def _at_once() -> None:
    """Nothing is written beside the results."""


@dataclass(frozen=True, slots=True)
class Stage(Generic[E]):
    """One agent's work.

    Attributes
    ----------
    name : of the step, as dead letters call it.
    record : the events that its topic carries.
    process : one event to what is to be sent.
    publish : sends it.
    breakers : of this process's dependencies.
    tell : what to send when an event has to wait or has failed, so that its row says so, too.
    batch_size : events whose results are sent together, at the most, as long as more are waiting.
        A stage with batches keeps to the order of its events.
    coalesce : makes fewer messages of a batch's.
    settled : returns when what `process` wrote beside its results is durable.
    """

    name: str
    record: type[E]
    process: Callable[[E], Awaitable[list[Message]]]
    publish: Publish
    breakers: Breakers
    tell: Tell = lambda _event, _status, _error, _attempt: []
    batch_size: int = 1
    coalesce: Callable[[list[Message]], list[Message]] = list
    settled: Callable[[], Awaitable[None]] = _at_once

    async def run(self, stream: Any) -> None:
        """Handle a Faust stream's events for ever.

        Faust would acknowledge an event whose handling was cancelled, as it is when a worker
        stops; so events are acknowledged here, when they are at their end.
        """
        stream.enable_acks = False
        postponed = _Postponed(self.name)
        lanes = Lanes[_Work[E]](self._in_lane)
        handled: list[Incoming] = []
        results: list[Message] = []
        try:
            async for message in stream.events():
                # At once, because Faust's tables go by the event that came last.
                work = _Work(self, message)
                attempt = partial(self._surely, work.attempt)
                try:
                    found = await lanes.unless_held(message.message.partition, attempt)
                    if found is None and self.batch_size == 1 and postponed.has_room:
                        postponed.take(self._later(work))
                        continue
                    while found is None:
                        found = await self._surely(work.next_attempt)
                except NotNow as held:
                    lanes.hold(message.message.partition, work, held)
                else:
                    results += found
                    handled.append(message)
                if len(handled) < self.batch_size and not stream.channel.empty():
                    continue
                if handled:
                    await self._finish(results, handled)
                handled, results = [], []
            await lanes.done()
            await postponed.done()
        finally:
            # Unfinished, they are unacknowledged: whoever reads on will read them.
            lanes.cancel()
            postponed.cancel()

    async def _in_lane(self, work: "_Work[E]") -> None:
        """Bring an event to its end whose partition's rows are there again."""
        # Faust's tables write to the partition of the event at hand, a task's own matter.
        set_current_event(work.incoming)
        found = await self._surely(work.attempt)
        while found is None:
            found = await self._surely(work.next_attempt)
        await self._finish(found, [work.incoming])

    async def _later(self, work: "_Work[E]") -> None:
        """Bring an event whose attempt failed to its end."""
        found = None
        while found is None:
            found = await self._surely(work.next_attempt)
        await self._finish(found, [work.incoming])

    async def _finish(self, results: list[Message], handled: list[Incoming]) -> None:
        if self.settled is _at_once:
            await self._send(results)
        else:
            # In one request, where both go to the same Kafka.
            await asyncio.gather(self._send(results), self._surely(self._settle))
        for each in handled:
            each.ack()

    async def _send(self, results: list[Message]) -> None:
        if results:
            messages = self.coalesce(results)
            await self._surely(
                partial(self.breakers.wait_until_available, partial(self.publish, *messages))
            )

    async def _settle(self) -> None:
        while True:
            try:
                return await self.breakers.wait_until_available(self.settled)
            except NotNow as held:
                await held.until_there()

    async def _surely(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` until it succeeds: leaving the loop would lose the event."""
        while True:
            try:
                return await work()
            except NotNow:
                raise
            except Exception:
                log.exception("event could not be handled; trying again", stage=self.name)
                await asyncio.sleep(MISTAKE_WAIT_S)


class _Work(Generic[E]):
    """One message on its way through a stage."""

    def __init__(self, stage: Stage[E], incoming: Incoming) -> None:
        self.stage, self.incoming = stage, incoming
        self._event: E | None = None
        self._attempt = 0
        self._policy = POLICY
        self._started = time.perf_counter()

    async def attempt(self) -> list[Message] | None:
        """Return what is to be sent, after which the message is at its end.

        None means that the event's own attempt failed and there is to be another one.
        """
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
        final = isinstance(error, DeepLensError) and not error.retryable
        if not final and attempt < min(self._policy.maxAttempts, MAX_ATTEMPTS):
            ATTEMPTS.labels(stage.name, "again").inc()
            log.warning("attempt failed", stage=stage.name, attempt=attempt, error=repr(error))
            await self._tell(event, known)
            return None
        ATTEMPTS.labels(stage.name, "given_up").inc()
        self._count("failed")
        letter = dead_letters.dead_letter(stage.name, event, error, attempt, self.incoming)
        return [letter, *stage.tell(event, StepStatus.FAILED, known, attempt)]

    async def _waits(self, error: DependencyUnavailable) -> None:
        if self._event is not None:
            await self._tell(self._event, error)

    async def _tell(self, event: E, error: DeepLensError) -> None:
        """Say that the event is waiting; where that cannot be said, it waits all the same."""
        messages = self.stage.tell(event, StepStatus.RETRYING, error, self._attempt)
        if messages and not self.stage.breakers[BrokerUnavailable.dependency].reason:
            try:
                await self.stage.publish(*messages)
            except BrokerUnavailable as broker:
                self.stage.breakers[broker.dependency].note(broker)

    def _count(self, result: str) -> None:
        EVENTS.labels(self.stage.name, result).inc()
        STAGE_SECONDS.labels(self.stage.name).observe(time.perf_counter() - self._started)


@dataclass(slots=True)
class _Postponed:
    """Events that wait for their next attempt, beside the loop."""

    stage: str
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def has_room(self) -> bool:
        return len(self._tasks) < MAX_POSTPONED

    def take(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        POSTPONED.labels(self.stage).inc()
        task.add_done_callback(self._drop)

    def _drop(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        POSTPONED.labels(self.stage).dec()

    async def done(self) -> None:
        await asyncio.gather(*self._tasks)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


def _with_attempt(results: list[Message], attempt: int) -> list[Message]:
    """Have reports say at which attempt the step succeeded."""
    if attempt > 1:
        for message in results:
            if isinstance(message.event, ImageProgress):
                for report in message.event.data.reports:
                    report.attempt = attempt
    return results
