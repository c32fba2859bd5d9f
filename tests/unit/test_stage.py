"""No exception leaves a stage, and nothing is dropped without a dead letter."""

import asyncio
import base64
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from deeplens_streams import codec, stage
from deeplens_streams.errors import BrokerUnavailable, UndecodableImage, VectorsUnavailable
from deeplens_streams.stage import Stage
from deeplens_streams.topics import COMPLETED, FAILED, Message, Topic
from models.events import Event, ImageUploaded, ImageUploadedData, ProcessingFailed

IMAGE = "img_98765432-4321-4321-4321-210987654321"


class Outbox:
    """Keeps what is sent; refuses the first `refusals` sends."""

    def __init__(self, refusals: int = 0) -> None:
        self.sent: list[tuple[Topic, Event]] = []
        self.refusals = refusals

    async def send(self, *messages: Message) -> None:
        if self.refusals:
            self.refusals -= 1
            raise BrokerUnavailable
        for message in messages:
            # What is sent must be readable again.
            codec.decode(type(message.event), codec.encode(message.event))
            self.sent.append((message.topic, message.event))


class Stream:
    """What is used of a Faust stream."""

    def __init__(self, *values: bytes) -> None:
        self.values, self.acked, self.enable_acks = values, 0, True

    async def events(self) -> AsyncIterator[Any]:
        for value in self.values:
            message = incoming(value)
            message.ack = self._ack
            yield message

    def _ack(self) -> None:
        self.acked += 1


def uploaded() -> ImageUploaded:
    return ImageUploaded(
        eventType="image.uploaded",
        tenantId="acme-corp",
        eventId="e1",
        correlationId="e1",
        data=ImageUploadedData(
            imageId=IMAGE, fileName="a.jpg", filePath="x", fileSize=1, contentType="image/jpeg"
        ),
    )


def incoming(value: bytes | None, headers: dict[str, bytes] | None = None) -> Any:
    return SimpleNamespace(
        key=IMAGE.encode(),
        value=value,
        headers=headers or {},
        message=SimpleNamespace(topic="t", partition=1, offset=7),
    )


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "BACKOFF_S", 0.001)
    monkeypatch.setattr(stage, "MAX_WAIT_S", 0.01)


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


def letters(outbox: Outbox) -> list[ProcessingFailed]:
    return [event for topic, event in outbox.sent if topic is FAILED]  # type: ignore[misc]


async def handle(process: Any, outbox: Outbox, value: bytes | None, **kwargs: Any) -> None:
    async with asyncio.timeout(10):
        await Stage("image_processing", ImageUploaded, process, outbox, **kwargs).handle(
            incoming(value)
        )


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
    await Stage("s", ImageUploaded, process, outbox).handle(
        incoming(b"x", {"tenantId": b"../../etc", "correlationId": b"\xff"})
    )
    assert letters(outbox)[0].tenantId == ""


async def test_a_bad_picture_is_a_dead_letter_at_once() -> None:
    outbox = Outbox()
    process, calls = failing(UndecodableImage("cut short"))
    told = Message(COMPLETED, uploaded())
    await handle(
        process, outbox, codec.encode(uploaded()), on_failure=lambda _event, _error: [told]
    )
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
    process, _ = failing(RuntimeError(), RuntimeError(), RuntimeError())

    stream = Stream(b"garbage", codec.encode(uploaded()), codec.encode(uploaded()))
    async with asyncio.timeout(10):
        await Stage("s", ImageUploaded, process, outbox).run(stream)
    assert [topic for topic, _ in outbox.sent] == [FAILED, FAILED, COMPLETED]
    assert stream.acked == 3


async def test_an_event_whose_handling_is_cancelled_is_not_acknowledged() -> None:
    started = asyncio.Event()

    async def process(_event: ImageUploaded) -> list[Message]:
        started.set()
        await asyncio.Event().wait()
        return []

    stream = Stream(codec.encode(uploaded()))
    task = asyncio.create_task(Stage("s", ImageUploaded, process, Outbox()).run(stream))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.enable_acks is False
    assert stream.acked == 0
