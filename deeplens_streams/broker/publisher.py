"""The door through which events go out."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from deeplens_streams.broker import codec
from deeplens_streams.broker.errors import broker_faults
from deeplens_streams.broker.topics import Message, Topic
from deeplens_streams.broker.topology import FAILED, TOPICS
from deeplens_streams.circuit_breaker import Breakers
from deeplens_streams.config import Settings
from deeplens_streams.errors import BrokerRefused, BrokerUnavailable

if TYPE_CHECKING:
    import faust


@dataclass(frozen=True, slots=True)
class _Record:
    """An event as Kafka is given it; `value` is None to remove what its key had."""

    topic: str
    key: bytes
    value: bytes | None
    headers: dict[str, bytes]


class Publisher:
    """Sends events of one app; a sent event is durable when the awaited call returns."""

    def __init__(self, app: "faust.App", settings: Settings, breakers: Breakers) -> None:
        self._app = app
        self._breaker = breakers[BrokerUnavailable.dependency]
        self._timeout = settings.produce_timeout_s
        self._topics = {
            topic: app.topic(
                topic.name(settings.namespace),
                key_type=bytes,
                value_type=bytes,
                key_serializer="raw",
                value_serializer="raw",
                allow_empty=True,
                partitions=topic.partitions,
            )
            for topic in TOPICS
        }
        self._names = {topic: topic.name(settings.namespace) for topic in TOPICS}

    def channel(self, topic: Topic) -> "faust.TopicT":
        """Return Faust's own topic, to read from; keys and values are raw bytes."""
        return self._topics[topic]

    def _encoded(self, message: Message) -> _Record:
        event = message.event
        value = None if message.is_tombstone else codec.encode(event)
        if value is not None and len(value) > FAILED.max_bytes:
            raise BrokerRefused(f"The event is larger than Kafka takes ({FAILED.max_bytes} bytes).")
        return _Record(self._names[message.topic], event.key.encode(), value, codec.headers(event))

    async def _begin(self, record: _Record) -> Awaitable[Any]:
        """Hand the record to the producer; what is returned is done when Kafka has it.

        Straight to the producer: Faust's topics would only wrap what is bytes already.
        """
        producer = await self._app.maybe_start_producer()
        sent: Awaitable[Any] = await producer.send(
            record.topic,
            record.key,
            record.value,
            partition=None,
            timestamp=None,
            headers=cast(Any, record.headers),
        )
        return sent

    async def send(self, *messages: Message) -> None:
        """Send events together and return when every in-sync replica has them (acks=all).

        Raises
        ------
        BrokerUnavailable
            Kafka takes none now, or did not answer in ``produce_timeout_s``. In the second case
            it may still be delivered later.
        BrokerRefused
            Kafka does not take one of these very events; others may have been sent.
        """
        # First: of what cannot be written, nothing is sent, and Kafka has no part in it.
        records = [self._encoded(message) for message in messages]
        with self._breaker.call():
            await self._send(records)

    async def _send(self, records: Sequence[_Record]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                with broker_faults("the event"):
                    for waiting in [await self._begin(record) for record in records]:
                        await waiting
        except TimeoutError:
            raise BrokerUnavailable(
                f"Kafka did not take the event within {self._timeout:g} s; try again later."
            ) from None
