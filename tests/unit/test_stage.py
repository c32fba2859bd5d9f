"""No exception leaves a stage, and nothing is dropped without a dead letter."""

import asyncio
import base64
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import orjson
import pytest
from prometheus_client import REGISTRY

from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import COMPLETED, FAILED
from deeplens_streams.circuit_breaker import Breakers
from deeplens_streams.circuit_breaker import breaker as circuit_breaker
from deeplens_streams.errors import (
    BrokerRefused,
    BrokerUnavailable,
    DeepLensError,
    MalformedEvent,
    StorageUnavailable,
    UndecodableImage,
    VectorsUnavailable,
)
from deeplens_streams.pipeline import attempts
from deeplens_streams.pipeline.dead_letters import unreadable
from deeplens_streams.pipeline.progress import progress, report
from deeplens_streams.pipeline.stage import Stage
from models.events import (
    FeatureExtractionRequested,
    ImageUploaded,
    RetryPolicy,
)
from models.status import ImageProgress, Step, StepStatus
from tests.support.stage_messages import (
    IMAGE,
    Outbox,
    Stream,
    incoming,
    letters,
    uploaded,
    with_policy,
)

UNEXPECTED = ("deeplens_unexpected_errors_total", {"stage": "s"})


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "POLICY", RetryPolicy(backoffMs=1))
    monkeypatch.setattr(circuit_breaker, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(circuit_breaker, "LONGEST_WAIT_S", 0.01)


def failing(*errors: Exception) -> tuple[Any, list[int]]:
    """Return a process that raises these in turn and then succeeds, and its calls."""
    calls: list[int] = []
    left = list(errors)

    async def process(event: ImageUploaded) -> list[Message]:
        calls.append(1)
        if left:
            raise left.pop(0)
        return [Message(COMPLETED, event)]

    return process, calls


async def handle(process: Any, outbox: Outbox, value: bytes | None, **kwargs: Any) -> None:
    stream = Stream(value)
    async with asyncio.timeout(10):
        await Stage(
            name="image_processing",
            record=ImageUploaded,
            process=process,
            publish=outbox.send,
            breakers=Breakers(),
            **kwargs,
        ).run(stream)
    assert stream.acked == 1


async def test_what_process_returns_is_sent() -> None:
    outbox = Outbox()
    process, _ = failing()
    await handle(process, outbox, codec.encode(uploaded()))
    assert [topic for topic, _ in outbox.sent] == [COMPLETED]


@pytest.mark.parametrize("raw", [b"x", b"\xff\x00", b"", None, b'{"eventType": "image.uploaded"}'])
async def test_an_unreadable_message_is_a_dead_letter_with_its_bytes(raw: bytes | None) -> None:
    outbox = Outbox()
    process, calls = failing()
    await handle(process, outbox, raw)
    (letter,) = letters(outbox)
    assert not calls
    assert letter.data.errorCode == "MALFORMED_EVENT"
    assert letter.data.failedStep == "image_processing"
    assert letter.data.originalEvent is not None
    kept = letter.data.originalEvent["valueBase64"]
    assert (base64.b64decode(kept) if kept is not None else None) == raw
    assert letter.data.canRetry is False


async def test_a_repeated_unreadable_message_is_the_same_dead_letter() -> None:
    outbox = Outbox()
    process, _ = failing()
    await handle(process, outbox, b"x")
    await handle(process, outbox, b"x")
    one, two = letters(outbox)
    assert one.eventId == two.eventId


async def test_a_strangers_tenant_header_is_not_believed() -> None:
    outbox = Outbox()
    process, _ = failing()
    await Stage(
        name="s", record=ImageUploaded, process=process, publish=outbox.send, breakers=Breakers()
    ).run(Stream(b"x", headers={"tenantId": b"../../etc", "correlationId": b"\xff"}))
    assert letters(outbox)[0].tenantId == ""


async def test_a_bad_picture_is_a_dead_letter_at_once() -> None:
    outbox = Outbox()
    process, calls = failing(UndecodableImage("cut short"))
    told = Message(COMPLETED, uploaded())
    await handle(process, outbox, codec.encode(uploaded()), report_failure=lambda *_about: [told])
    (letter,) = letters(outbox)
    assert len(calls) == 1
    assert letter.data.errorCode == "UNDECODABLE_IMAGE"
    assert letter.data.errorMessage == "cut short"
    assert letter.data.imageId == IMAGE
    assert letter.correlationId == "e1"
    assert codec.decode(ImageUploaded, orjson.dumps(letter.data.originalEvent)) == uploaded()
    assert outbox.sent[-1] == (COMPLETED, uploaded())


async def test_an_unforeseen_error_is_tried_three_times() -> None:
    outbox = Outbox()
    process, calls = failing(RuntimeError("1"), RuntimeError("2"), RuntimeError("3"))
    await handle(process, outbox, codec.encode(uploaded()))
    (letter,) = letters(outbox)
    assert len(calls) == 3
    assert letter.data.errorCode == "INTERNAL"
    assert letter.data.retryAttempt == 3
    assert letter.data.canRetry is True
    assert letter.data.stackTrace is not None
    assert "RuntimeError" in letter.data.stackTrace


async def test_a_second_attempt_that_succeeds_leaves_no_dead_letter() -> None:
    outbox = Outbox()
    process, calls = failing(RuntimeError("once"))
    await handle(process, outbox, codec.encode(uploaded()))
    assert len(calls) == 2
    assert not letters(outbox)


async def test_a_dependency_that_is_down_is_waited_for() -> None:
    outbox = Outbox(refusals=6)
    process, calls = failing(*[VectorsUnavailable() for _ in range(8)])
    await handle(process, outbox, codec.encode(uploaded()))
    assert len(calls) == 9
    assert not letters(outbox)
    assert [topic for topic, _ in outbox.sent] == [COMPLETED]


async def test_the_loop_outlives_everything() -> None:
    outbox = Outbox()
    process, _ = failing(*[RuntimeError()] * 6)
    stream = Stream(b"garbage", *[codec.encode(uploaded())] * 3)
    async with asyncio.timeout(10):
        await Stage(
            name="s",
            record=ImageUploaded,
            process=process,
            publish=outbox.send,
            breakers=Breakers(),
            batch_size=2,
        ).run(stream)
    assert [topic for topic, _ in outbox.sent] == [FAILED, FAILED, FAILED, COMPLETED]
    assert stream.acked == 4


async def test_an_event_that_waits_for_its_next_attempt_holds_up_no_other() -> None:
    outbox = Outbox()
    others_done = asyncio.Event()
    attempts: list[str] = []

    async def process(event: ImageUploaded) -> list[Message]:
        attempts.append(event.eventId)
        if event.eventId == "bad" and attempts.count("bad") == 1:
            raise RuntimeError
        if event.eventId == "bad":
            await others_done.wait()
        elif attempts.count("e1") == 3:
            others_done.set()
        return [Message(COMPLETED, event)]

    bad = uploaded()
    bad.eventId = "bad"
    stream = Stream(codec.encode(bad), *[codec.encode(uploaded())] * 3)
    async with asyncio.timeout(10):
        await Stage(
            name="s",
            record=ImageUploaded,
            process=process,
            publish=outbox.send,
            breakers=Breakers(),
        ).run(stream)
    assert [event.eventId for _, event in outbox.sent] == ["e1", "e1", "e1", "bad"]
    assert stream.acked == 4


async def test_an_event_that_waits_for_its_next_attempt_is_unacknowledged_at_a_stop() -> None:
    failed, idle = asyncio.Event(), asyncio.Event()

    async def process(_event: ImageUploaded) -> list[Message]:
        failed.set()
        raise RuntimeError

    class Endless(Stream):
        async def events(self) -> AsyncIterator[Any]:
            async for each in super().events():
                yield each
            await idle.wait()

    stream = Endless(codec.encode(with_policy(backoff_ms=60_000)))
    stage_ = Stage(
        name="s",
        record=FeatureExtractionRequested,
        process=process,
        publish=Outbox().send,
        breakers=Breakers(),
    )
    task = asyncio.create_task(stage_.run(stream))
    await failed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.acked == 0


async def test_an_event_brings_its_own_policy() -> None:
    outbox = Outbox()
    process, calls = failing(*[RuntimeError()] * 9)
    stream = Stream(codec.encode(with_policy(max_attempts=5)))
    async with asyncio.timeout(10):
        await Stage(
            name="s",
            record=FeatureExtractionRequested,
            process=process,
            publish=outbox.send,
            breakers=Breakers(),
        ).run(stream)
    assert len(calls) == 5
    assert letters(outbox)[0].data.retryAttempt == 5


async def test_a_row_is_told_of_waits_attempts_and_failures() -> None:
    told: list[tuple[StepStatus, str, int]] = []

    def tell(_event: Any, status: StepStatus, error: DeepLensError, attempt: int) -> list[Message]:
        told.append((status, error.code, attempt))
        return []

    process, _ = failing(
        VectorsUnavailable(), VectorsUnavailable(), RuntimeError(), RuntimeError(), RuntimeError()
    )
    await handle(process, Outbox(), codec.encode(uploaded()), report_failure=tell)
    assert told == [
        (StepStatus.RETRYING, "VECTORS_UNAVAILABLE", 1),
        (StepStatus.RETRYING, "INTERNAL", 1),
        (StepStatus.RETRYING, "INTERNAL", 2),
        (StepStatus.FAILED, "INTERNAL", 3),
    ]


async def test_a_report_says_at_which_attempt_its_step_succeeded() -> None:
    outbox = Outbox()
    left = [RuntimeError()]

    async def process(event: ImageUploaded) -> list[Message]:
        if left:
            raise left.pop()
        return [progress(event, [report(Step.IMAGE_PROCESSING, StepStatus.COMPLETED)])]

    await handle(process, outbox, codec.encode(uploaded()))
    ((_, event),) = outbox.sent
    assert isinstance(event, ImageProgress)
    assert [each.attempt for each in event.data.reports] == [2]


async def test_an_event_whose_handling_is_cancelled_is_not_acknowledged() -> None:
    started = asyncio.Event()

    async def process(_event: ImageUploaded) -> list[Message]:
        started.set()
        await asyncio.Event().wait()
        return []

    stream = Stream(codec.encode(uploaded()))
    task = asyncio.create_task(
        Stage(
            name="s",
            record=ImageUploaded,
            process=process,
            publish=Outbox().send,
            breakers=Breakers(),
        ).run(stream)
    )
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.enable_acks is False
    assert stream.acked == 0


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (9, [5])])
async def test_results_of_waiting_events_are_sent_together(
    batch_size: int, sizes: list[int]
) -> None:
    outbox = Outbox()
    process, _ = failing()
    stream = Stream(*[codec.encode(uploaded())] * 5)
    await Stage(
        name="s",
        record=ImageUploaded,
        process=process,
        publish=outbox.send,
        breakers=Breakers(),
        batch_size=batch_size,
    ).run(stream)
    assert outbox.sizes == sizes
    assert stream.acked == 5


async def test_no_event_is_acknowledged_before_its_results_are_sent() -> None:
    refused = asyncio.Event()

    class Broken(Outbox):
        async def send(self, *messages: Message) -> None:
            refused.set()
            raise BrokerUnavailable

    process, calls = failing()
    stream = Stream(*[codec.encode(uploaded())] * 3)
    task = asyncio.create_task(
        Stage(
            name="s",
            record=ImageUploaded,
            process=process,
            publish=Broken().send,
            breakers=Breakers(),
            batch_size=9,
        ).run(stream)
    )
    await refused.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(calls) == 3
    assert stream.acked == 0


async def test_no_event_is_acknowledged_before_its_table_is_settled() -> None:
    stream, process = Stream(codec.encode(uploaded())), failing()[0]
    seen: list[int] = []

    async def settled() -> None:
        seen.append(stream.acked)
        if len(seen) < 3:
            raise BrokerUnavailable

    async with asyncio.timeout(10):
        await Stage(
            name="s",
            record=ImageUploaded,
            process=process,
            publish=Outbox().send,
            breakers=Breakers(),
            settled=settled,
        ).run(stream)
    assert seen == [0, 0, 0]
    assert stream.acked == 1


class Picky(Outbox):
    """Takes no event of one ID but its dead letter."""

    def __init__(self, error: Exception, event_id: str) -> None:
        super().__init__()
        self.error, self.event_id = error, event_id

    async def send(self, *messages: Message) -> None:
        if any(each.event.eventId == self.event_id for each in messages):
            raise self.error
        await super().send(*messages)


@pytest.mark.parametrize("batch_size", [1, 9])
@pytest.mark.parametrize(
    ("error", "code", "unexpected"),
    [
        (BrokerRefused("Kafka refused the event (MessageSizeTooLargeError)."), "BROKER_REFUSED", 0),
        (TypeError("Type is not JSON serializable: set"), "INTERNAL", 1),
    ],
)
async def test_results_that_cannot_be_sent_are_the_letter_of_their_event_alone(
    error: Exception, code: str, unexpected: int, batch_size: int
) -> None:
    before = REGISTRY.get_sample_value(*UNEXPECTED) or 0
    events = [uploaded(), uploaded(), uploaded()]
    for each, name in zip(events, ("first", "bad", "last"), strict=True):
        each.eventId = name
    stream, outbox = Stream(*map(codec.encode, events)), Picky(error, "bad")
    known = Breakers()
    async with asyncio.timeout(10):
        await Stage(
            name="s",
            record=ImageUploaded,
            process=failing()[0],
            publish=outbox.send,
            breakers=known,
            batch_size=batch_size,
        ).run(stream)
    assert {e.eventId for topic, e in outbox.sent if topic is COMPLETED} == {"first", "last"}
    (letter,) = letters(outbox)
    assert (letter.data.errorCode, letter.data.canRetry) == (code, True)
    assert (letter.data.originalEvent or {})["eventId"] == "bad"
    assert stream.acked == 3
    assert not known["broker"].is_open
    assert (REGISTRY.get_sample_value(*UNEXPECTED) or 0) == before + unexpected


class Slow(Outbox):
    """Refuses what it is given first and second."""

    refusals = 2

    async def send(self, *messages: Message) -> None:
        if self.refusals:
            self.refusals -= 1
            raise BrokerRefused
        await super().send(*messages)


async def test_a_letter_that_is_refused_at_first_keeps_its_reason() -> None:
    stream, outbox = Stream(codec.encode(uploaded())), Slow()
    process, _ = failing(UndecodableImage())
    async with asyncio.timeout(10):
        await Stage(
            name="s",
            record=ImageUploaded,
            process=process,
            publish=outbox.send,
            breakers=Breakers(),
        ).run(stream)
    (letter,) = letters(outbox)
    assert (letter.data.errorCode, letter.data.canRetry) == ("UNDECODABLE_IMAGE", False)
    assert stream.acked == 1


async def test_a_mistake_in_reading_a_message_ends_in_a_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def decode(*_: object) -> None:
        raise AttributeError("'list' object has no attribute 'get'")

    before = REGISTRY.get_sample_value(*UNEXPECTED) or 0
    stream, outbox = Stream(codec.encode(uploaded())), Outbox()
    process, calls = failing()
    with monkeypatch.context() as broken:
        broken.setattr(codec, "decode", decode)
        broken.setattr(outbox, "send", partial(kept, outbox))
        async with asyncio.timeout(10):
            await Stage(
                name="s",
                record=ImageUploaded,
                process=process,
                publish=outbox.send,
                breakers=Breakers(),
            ).run(stream)
    (letter,) = letters(outbox)
    assert (letter.data.errorCode, letter.data.canRetry) == ("INTERNAL", False)
    raw = (letter.data.originalEvent or {})["valueBase64"]
    assert base64.b64decode(raw) == codec.encode(uploaded())
    assert "'list' object has no attribute 'get'" in (letter.data.stackTrace or "")
    assert (calls, stream.acked) == ([], 1)
    assert REGISTRY.get_sample_value(*UNEXPECTED) == before + 1


@pytest.mark.parametrize("error", [BrokerRefused(), TypeError("no event")])
async def test_an_event_that_waits_is_not_given_up_because_that_cannot_be_said(
    error: Exception,
) -> None:
    before = REGISTRY.get_sample_value(*UNEXPECTED) or 0
    stream, outbox = Stream(codec.encode(uploaded())), Picky(error, "waiting")
    waiting = uploaded()
    waiting.eventId = "waiting"
    process, calls = failing(StorageUnavailable(), StorageUnavailable())
    telling = Stage(
        name="s",
        record=ImageUploaded,
        process=process,
        publish=outbox.send,
        breakers=Breakers(),
        report_failure=lambda *_: [Message(COMPLETED, waiting)],
    )
    async with asyncio.timeout(10):
        await telling.run(stream)
    assert [event.eventId for _, event in outbox.sent] == ["e1"]
    assert (len(calls), stream.acked) == (3, 1)
    assert REGISTRY.get_sample_value(*UNEXPECTED) == before + 1


async def kept(outbox: Outbox, *messages: Message) -> None:
    outbox.sent += [(each.topic, each.event) for each in messages]


async def test_a_letter_of_the_largest_message_fits_its_topic() -> None:
    outbox, half = Outbox(), FAILED.max_bytes // 2
    message = incoming(b"x" * half)
    message.key = b"k" * half
    await outbox.send(unreadable("dead_letters", message, MalformedEvent()))
    (letter,) = letters(outbox)
    assert len(codec.encode(letter)) < FAILED.max_bytes


async def test_what_fails_for_one_event_alone_stops_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that cannot be read, in storage that works: an error of the item."""
    monkeypatch.setattr(circuit_breaker, "FIRST_WAIT_S", 0.01)
    known, outbox = Breakers(), Outbox()

    async def ping() -> None: ...

    known["storage"].ping = ping

    async def process(event: ImageUploaded) -> list[Message]:
        if event.eventId != "bad":
            return [Message(COMPLETED, event)]
        error = StorageUnavailable()
        error.ambiguous = True
        raise error

    bad, good = uploaded(), uploaded()
    bad.eventId, good.eventId = "bad", "good"
    stream = Stream(codec.encode(bad), codec.encode(good))
    monkeypatch.setattr(attempts, "POLICY", RetryPolicy(maxAttempts=2, backoffMs=10))
    async with asyncio.timeout(10):
        await Stage(
            name="s", record=ImageUploaded, process=process, publish=outbox.send, breakers=known
        ).run(stream)
    assert [event.eventId for topic, event in outbox.sent if topic is COMPLETED] == ["good"]
    (letter,) = letters(outbox)
    assert (letter.data.errorCode, letter.data.canRetry) == ("STORAGE_UNAVAILABLE", True)
    assert letter.data.retryAttempt == 2
    assert known["storage"].reason is None
    assert stream.acked == 2
