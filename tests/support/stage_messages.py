"""What a stage takes and gives."""

from collections import deque
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Message, Topic
from deeplens_streams.broker.topology import FAILED
from deeplens_streams.errors import (
    BrokerUnavailable,
)
from models.events import (
    Event,
    FeatureExtractionData,
    FeatureExtractionRequested,
    ImageUploaded,
    ImageUploadedData,
    ProcessingFailed,
    RetryPolicy,
)

IMAGE = "img_98765432-4321-4321-4321-210987654321"


class Outbox:
    """Keeps what is sent; refuses the first `refusals` sends."""

    def __init__(self, refusals: int = 0) -> None:
        self.sent: list[tuple[Topic, Event]] = []
        self.sizes: list[int] = []
        self.refusals = refusals

    async def send(self, *messages: Message) -> None:
        if self.refusals:
            self.refusals -= 1
            raise BrokerUnavailable
        self.sizes.append(len(messages))
        for message in messages:
            # What is sent must be readable again.
            codec.decode(type(message.event), codec.encode(message.event))
            self.sent.append((message.topic, message.event))


class Stream:
    """What is used of a Faust stream, all of whose messages are there from the start."""

    def __init__(self, *values: bytes | None, headers: dict[str, bytes] | None = None) -> None:
        self.waiting, self.headers = deque(values), headers
        self.acked, self.enable_acks = 0, True
        self.channel = SimpleNamespace(empty=lambda: not self.waiting)

    async def events(self) -> AsyncIterator[Any]:
        while self.waiting:
            message = incoming(self.waiting.popleft(), self.headers)
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


def with_policy(*, max_attempts: int = 3, backoff_ms: int = 1) -> FeatureExtractionRequested:
    return FeatureExtractionRequested(
        eventType="feature.extraction.requested",
        tenantId="acme-corp",
        eventId="e2",
        correlationId="e1",
        data=FeatureExtractionData(
            imageId=IMAGE, imagePath="x", modelName="m", expectedDimension=2048
        ),
        retryPolicy=RetryPolicy(maxAttempts=max_attempts, backoffMs=backoff_ms),
    )


def incoming(value: bytes | None, headers: dict[str, bytes] | None = None) -> Any:
    return SimpleNamespace(
        key=IMAGE.encode(),
        value=value,
        headers=headers or {},
        message=SimpleNamespace(topic="t", partition=1, offset=7),
    )


def letters(outbox: Outbox) -> list[ProcessingFailed]:
    return [event for topic, event in outbox.sent if topic is FAILED]
