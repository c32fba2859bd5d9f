"""The door through which events go out."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, cast

from deeplens_streams.broker import codec
from deeplens_streams.broker.errors import broker_faults
from deeplens_streams.broker.topics import Message, Topic
from deeplens_streams.broker.topology import TOPICS
from deeplens_streams.circuit_breaker import Breakers
from deeplens_streams.config import Settings
from deeplens_streams.errors import BrokerUnavailable

if TYPE_CHECKING:
    import faust


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

    async def _begin(self, message: Message) -> Awaitable[Any]:
        """Hand the event to the producer; what is returned is done when Kafka has it.

        Straight to the producer: Faust's topics would only wrap what is bytes already.
        """
        event = message.event
        producer = await self._app.maybe_start_producer()
        sent: Awaitable[Any] = await producer.send(
            self._names[message.topic],
            event.key.encode(),
            None if message.is_tombstone else codec.encode(event),
            partition=None,
            timestamp=None,
            headers=cast(Any, codec.headers(event)),
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
        with self._breaker.call():
            await self._send(messages)

    async def _send(self, messages: Sequence[Message]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                with broker_faults("the event"):
                    for waiting in [await self._begin(message) for message in messages]:
                        await waiting
        except TimeoutError:
            raise BrokerUnavailable(
                f"Kafka did not take the event within {self._timeout:g} s; try again later."
            ) from None
