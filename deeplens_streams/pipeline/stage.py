"""The loop that every agent runs: decode, process, send, and let no exception out.

Faust acknowledges an event whose agent raised or was cancelled, so leaving the loop loses the
event. Here an event is acknowledged after its results are in Kafka: what `process` returned and
what it wrote to a table, or a dead letter that says why there is none.

A dependency that is away is waited for behind its circuit breaker, and no attempt is spent. An
event whose own attempt failed waits for the next one aside, and those behind it go on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import structlog

from deeplens_streams.broker.faust_transport import set_current_event
from deeplens_streams.broker.topics import Message, Publish
from deeplens_streams.broker.topology import FAILED
from deeplens_streams.circuit_breaker import Breakers
from deeplens_streams.errors import DeepLensError
from deeplens_streams.metrics import POSTPONED, UNEXPECTED
from deeplens_streams.pipeline.attempts import Work
from models.events import Event
from models.status import StepStatus
from tables.lanes import Lanes, NotNow

log = structlog.get_logger()

E = TypeVar("E", bound=Event)
T = TypeVar("T")

#: Events of one actor that wait for their next attempt; with more, the actor waits with them.
MAX_POSTPONED = 64
#: Seconds before what a mistake in this file broke is tried again.
MISTAKE_WAIT_S = 15.0


#: What a stage says of an event that is retrying or has failed, with the reason and the attempt.
ReportFailure = Callable[[Any, StepStatus, DeepLensError, int], list[Message]]


async def at_once() -> None:
    """Nothing is written beside the results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Generic[E]):
    """One agent's work.

    Attributes
    ----------
    name : of the step, as dead letters call it.
    record : the events that its topic carries.
    process : one event to what is to be sent.
    publish : sends it.
    breakers : of this process's dependencies.
    report_failure : what to send when an event has to wait or has failed, so that its row says so.
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
    report_failure: ReportFailure = lambda _event, _status, _error, _attempt: []
    batch_size: int = 1
    coalesce: Callable[[list[Message]], list[Message]] = list
    settled: Callable[[], Awaitable[None]] = at_once

    async def run(self, stream: Any) -> None:
        """Handle a Faust stream's events for ever.

        Faust would acknowledge an event whose handling was cancelled, as it is when a worker
        stops; so events are acknowledged here, when they are at their end.
        """
        stream.enable_acks = False
        postponed = _Postponed(self.name)
        lanes = Lanes[Work[E]](self._in_lane)
        done: list[_Done[E]] = []
        try:
            async for message in stream.events():
                # At once, because Faust's tables go by the event that came last.
                work = Work(self, message)
                try:
                    found = await lanes.unless_held(message.message.partition, work.attempt)
                    if found is None and self.batch_size == 1 and postponed.has_room:
                        postponed.take(self._later(work))
                        continue
                    while found is None:
                        found = await work.next_attempt()
                except NotNow as held:
                    lanes.hold(message.message.partition, work, held)
                else:
                    done.append(_Done(work, found))
                if len(done) < self.batch_size and not stream.channel.empty():
                    continue
                if done:
                    await self._finish(done)
                done = []
            await lanes.done()
            await postponed.done()
        finally:
            # Unfinished, they are unacknowledged: whoever reads on will read them.
            lanes.cancel()
            postponed.cancel()

    async def _in_lane(self, work: "Work[E]") -> None:
        """Bring an event to its end whose partition's rows are there again."""
        # Faust's tables write to the partition of the event at hand, a task's own matter.
        set_current_event(work.incoming)
        found = await work.attempt()
        while found is None:
            found = await work.next_attempt()
        await self._finish([_Done(work, found)])

    async def _later(self, work: "Work[E]") -> None:
        """Bring an event whose attempt failed to its end."""
        found = None
        while found is None:
            found = await work.next_attempt()
        await self._finish([_Done(work, found)])

    async def _finish(self, done: "list[_Done[E]]") -> None:
        if self.settled is at_once:
            await self._send_all(done)
        else:
            # In one request, where both go to the same Kafka.
            await asyncio.gather(self._send_all(done), self._surely(self._settle))
        for each in done:
            each.work.incoming.ack()

    async def _send_all(self, done: "list[_Done[E]]") -> None:
        """Send what came of some events; of which one it cannot be sent, that one has a letter."""
        try:
            await self._send([message for each in done for message in each.results])
        except Exception:
            # What was sent of the others before is sent again, as the same events.
            for each in done:
                try:
                    await self._send(each.results)
                except Exception as error:
                    await self._surely(partial(self._send_instead, each, error))

    async def _send_instead(self, done: "_Done[E]", error: Exception) -> None:
        """Send a letter for results that could not be sent; one that they are keeps its reason."""
        is_letter = any(message.topic is FAILED for message in done.results)
        await self._send(done.results if is_letter else done.work.unsent(error))

    async def _send(self, messages: list[Message]) -> None:
        if messages:
            publish = partial(self.publish, *self.coalesce(messages))
            await self.breakers.wait_until_available(publish)

    async def _settle(self) -> None:
        while True:
            try:
                return await self.breakers.wait_until_available(self.settled)
            except NotNow as held:
                await held.until_there()

    async def _surely(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` until it succeeds: without it, nothing is left to keep the event in."""
        while True:
            try:
                return await work()
            except Exception:
                UNEXPECTED.labels(self.name).inc()
                log.exception("event could not be handled; trying again", stage=self.name)
                await asyncio.sleep(MISTAKE_WAIT_S)


@dataclass(frozen=True, slots=True)
class _Done(Generic[E]):
    """A message that is at its end once its results are sent."""

    work: "Work[E]"
    results: list[Message]


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
