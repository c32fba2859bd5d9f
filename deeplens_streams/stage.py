"""The loop that every agent runs: decode, process, send, and let no exception out.

Faust acknowledges an event whose agent raised or was cancelled, so leaving the loop loses the
event. Here an event is acknowledged after its results are in Kafka: what `process` returned,
or a dead letter that says why there is none.
"""

import asyncio
import base64
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import orjson
import structlog

from deeplens_streams import codec
from deeplens_streams.errors import DeepLensError, DependencyUnavailable, MalformedEvent
from deeplens_streams.identifiers import check_image_id, check_tenant_id
from deeplens_streams.metrics import DEAD_LETTERS, EVENTS, STAGE_SECONDS
from deeplens_streams.topics import FAILED, Message
from models.events import (
    Event,
    ProcessingFailed,
    ProcessingFailedData,
    derived_id,
    utc_now,
)

log = structlog.get_logger()

E = TypeVar("E", bound=Event)
T = TypeVar("T")

#: Attempts at an event whose error nobody foresaw, and the wait before the second, doubling.
MAX_ATTEMPTS = 3
BACKOFF_S = 1.0
#: The longest wait for a dependency that is down.
MAX_WAIT_S = 15.0
#: Bytes of an unreadable message that its dead letter keeps; base64 must fit the topic's limit.
RAW_BYTES = 4_194_304


class Sender(Protocol):
    async def send(self, *messages: Message) -> None: ...


class Incoming(Protocol):
    """What is used of a Faust event: the raw message."""

    key: Any
    value: Any
    headers: Any
    message: Any

    def ack(self) -> Any: ...


#: What a stage sends when its event became a dead letter, so that the row says so, too.
OnFailure = Callable[[Any, DeepLensError], list[Message]]


@dataclass(frozen=True, slots=True)
class Stage(Generic[E]):
    """One agent's work.

    Attributes
    ----------
    name : of the step, as dead letters call it.
    record : the events that its topic carries.
    process : one event to what is to be sent.
    sender : sends it.
    on_failure : what to send beside a dead letter.
    bunch : events whose results are sent together, at the most, as long as more are waiting.
    """

    name: str
    record: type[E]
    process: Callable[[E], Awaitable[list[Message]]]
    sender: Sender
    on_failure: OnFailure = lambda _event, _error: []
    bunch: int = 1

    async def run(self, stream: Any) -> None:
        """Handle a Faust stream's events for ever.

        Faust would acknowledge an event whose handling was cancelled, as it is when a worker
        stops; so events are acknowledged here, when they are at their end.
        """
        stream.enable_acks = False
        handled: list[Incoming] = []
        results: list[Message] = []
        async for message in stream.events():
            # At once, because Faust's tables go by the event that came last.
            results += await self._surely(partial(self.results, message))
            handled.append(message)
            if len(handled) < self.bunch and not stream.channel.empty():
                continue
            await self._surely(partial(self._deliver, results))
            for each in handled:
                each.ack()
            handled, results = [], []

    async def _surely(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` until it succeeds: leaving the loop would lose the event."""
        while True:
            try:
                return await work()
            except Exception:
                # A mistake in this file.
                log.exception("event could not be handled; trying again", stage=self.name)
                await asyncio.sleep(MAX_WAIT_S)

    async def results(self, incoming: Incoming) -> list[Message]:
        """Bring one message to its end; it may be acknowledged when what returns is sent."""
        started = time.perf_counter()
        structlog.contextvars.clear_contextvars()
        try:
            event = codec.decode(self.record, incoming.value)
        except DeepLensError as error:
            self._count("unreadable", started)
            return [self._unreadable(incoming, error)]
        structlog.contextvars.bind_contextvars(
            correlation_id=event.correlationId, tenant=event.tenantId, image_id=event.image_id
        )
        attempt = 0
        while True:
            attempt += 1
            try:
                results: list[Message] = await self._with_patience(partial(self.process, event))
            except Exception as error:
                final = isinstance(error, DeepLensError) and not error.retryable
                if not final and attempt < MAX_ATTEMPTS:
                    log.warning(
                        "attempt failed", stage=self.name, attempt=attempt, error=repr(error)
                    )
                    await asyncio.sleep(BACKOFF_S * 2 ** (attempt - 1))
                    continue
                self._count("failed", started)
                return self._failed(event, error, attempt, _origin(incoming))
            self._count("done", started)
            return results

    def _count(self, result: str, started: float) -> None:
        EVENTS.labels(self.name, result).inc()
        STAGE_SECONDS.labels(self.name).observe(time.perf_counter() - started)

    async def _deliver(self, messages: list[Message]) -> None:
        """Send all; waits as long as Kafka is away."""
        if messages:
            await self._with_patience(partial(self.sender.send, *messages))

    async def _with_patience(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do `work`, waiting with backoff and jitter while a dependency is down."""
        waited_since: float | None = None
        delay = 0.2
        while True:
            try:
                result = await work()
            except DependencyUnavailable as error:
                if waited_since is None:
                    waited_since = time.monotonic()
                    log.warning("waiting", stage=self.name, code=error.code, reason=error.message)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                delay = min(delay * 2, MAX_WAIT_S)
            else:
                if waited_since is not None:
                    waited = round(time.monotonic() - waited_since, 1)
                    log.info("going on", stage=self.name, waited_s=waited)
                return result

    def _failed(self, event: E, error: Exception, attempt: int, origin: str) -> list[Message]:
        """Return the dead letter of an event that was read, and what goes with it."""
        if isinstance(error, DeepLensError):
            known, trace = error, None
        else:
            known = DeepLensError(f"Unexpected {type(error).__name__}; see the stack trace.")
            trace = "".join(traceback.format_exception(error))
        DEAD_LETTERS.labels(self.name, known.code).inc()
        log.warning("dead letter", stage=self.name, code=known.code, reason=known.message)
        letter = ProcessingFailed(
            eventType=ProcessingFailed.EVENT_TYPE,
            eventId=derived_id("failed", origin),
            timestamp=utc_now(),
            tenantId=event.tenantId,
            correlationId=event.correlationId,
            generation=event.generation,
            data=ProcessingFailedData(
                imageId=event.image_id,
                failedStep=self.name,
                errorCode=known.code,
                errorMessage=known.message,
                stackTrace=trace,
                retryAttempt=attempt,
                canRetry=trace is not None or known.retryable,
                originalEvent=event.to_wire(),
            ),
        )
        return [Message(FAILED, letter), *self.on_failure(event, known)]

    def _unreadable(self, incoming: Incoming, error: DeepLensError) -> Message:
        """Return the dead letter of a message that could not be read, with its raw bytes."""
        DEAD_LETTERS.labels(self.name, error.code).inc()
        raw = incoming.message
        tenant, image_id = _owner(incoming)
        log.warning(
            "unreadable message",
            stage=self.name,
            code=error.code,
            reason=error.message,
            topic=raw.topic,
            partition=raw.partition,
            offset=raw.offset,
        )
        letter = ProcessingFailed(
            eventType=ProcessingFailed.EVENT_TYPE,
            eventId=derived_id("failed", _origin(incoming)),
            timestamp=utc_now(),
            tenantId=tenant,
            correlationId=codec.header_text(incoming.headers, "correlationId"),
            data=ProcessingFailedData(
                imageId=image_id,
                failedStep=self.name,
                errorCode=MalformedEvent.code,
                errorMessage=error.message,
                canRetry=False,
                originalEvent={
                    "topic": raw.topic,
                    "partition": raw.partition,
                    "offset": raw.offset,
                    "keyBase64": _base64(incoming.key),
                    "valueBase64": _base64(incoming.value),
                    "valueBytes": len(incoming.value or b""),
                },
            ),
        )
        return Message(FAILED, letter)


def _origin(incoming: Incoming) -> str:
    """Name the message, the same at every redelivery."""
    raw = incoming.message
    return f"{raw.topic}/{raw.partition}/{raw.offset}"


def _base64(value: Any) -> str | None:
    return base64.b64encode(value[:RAW_BYTES]).decode() if isinstance(value, bytes) else None


def _owner(incoming: Incoming) -> tuple[str, str | None]:
    """Return tenant and image of a message that is no event, as far as it tells."""
    tenant = codec.header_text(incoming.headers, "tenantId")
    image_id: str | None = None
    try:
        data = orjson.loads(incoming.value or b"")
        tenant = tenant or data.get("tenantId")
        image_id = check_image_id(data["data"]["imageId"])
    except (ValueError, TypeError, KeyError, AttributeError, DeepLensError):
        image_id = None
    try:
        return check_tenant_id(tenant), image_id
    except DeepLensError:
        return "", image_id
