"""Faust's Kafka transport, with offsets that lose nothing and a cheaper way of reading.

Agents work on several events of a partition at once, and a later one may be acknowledged first.
Faust then commits past an earlier one, if that is the first after the committed offset; a worker
that is killed at that moment has lost it. Here what is committed is the oldest event in hand.

At the end of a rebalance Faust goes back to the committed offsets and then empties the buffers of
its streams. The Kafka client goes back only where one above 0 was committed, and what is read
between the two steps is emptied as well: either way the first events after it were lost.

Faust hands on each message with four tasks of asyncio, and asks Kafka again at once. Under load
that is a request for every message or two, which costs more CPU than what the message asks for.

While Kafka is away, a producer that has something to send asks where it is, and again as soon as
that is refused, which costs most of a core.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, cast

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from faust.exceptions import NotReady
from faust.transport.drivers import aiokafka
from faust.types import TP, Message
from faust.types.transports import TPorTopicSet
from mode import ServiceT

#: Seconds without a sign of life after which a worker's partitions go to others, and those after
#: which others have them, recovered, unless there is much to recover.
SESSION_TIMEOUT_S, TAKEN_OVER_S = 10.0, 20.0
#: Seconds between two reads while there is something to read: messages gather meanwhile. The
#: first message after a silence does not wait.
REST_S = 0.03
#: Seconds until a producer asks again where Kafka is when nobody has answered.
LOOK_S = 0.2


class Consumer(aiokafka.Consumer):
    """Reads in bunches; commits and goes back so that no event is left out."""

    #: By partition: the offsets of events in hand, and the one after the last handed on.
    _in_hand: defaultdict[TP, set[int]]
    _next: dict[TP, int]

    def on_init(self) -> None:
        super().on_init()
        self._forget()

    def _forget(self) -> None:
        self._in_hand, self._next = defaultdict(set), {}

    # Committing --------------------------------------------------------------------------

    def ack(self, message: Message) -> bool:
        """Note that an event is at its end."""
        if message.acked:
            return False
        message.acked = True
        self._in_hand[message.tp].discard(message.offset)
        return True

    def _filter_tps_with_pending_acks(self, topics: TPorTopicSet | None = None) -> Iterator[TP]:
        return (tp for tp in self._next if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        """Return the offset that a new owner of the partition is to begin with."""
        return min(self._in_hand[tp], default=self._next[tp]) or None

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        for tp in revoked:
            self._in_hand.pop(tp, None)
            self._next.pop(tp, None)
        await super().on_partitions_revoked(revoked)

    # Reading -----------------------------------------------------------------------------

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Hand every message to the agents that read its topic, until the fetcher stops."""
        while not (self.should_stop or fetcher.should_stop):
            try:
                messages = [each async for each in self.getmany(timeout=1.0)]
                if not messages:
                    await asyncio.sleep(0)
                    continue
                # A rebalance interrupts: what was not handed on is read again after it.
                await self.wait_first(self._hand_on(messages), self.suspend_flow.wait())
            except self.consumer_stopped_errors:
                if self.app.should_stop:
                    return
                raise
            await self.sleep(REST_S)

    async def _hand_on(self, messages: Sequence[tuple[TP, Message]]) -> None:
        for tp, message in messages:
            if not self.flow_active:
                return
            read = self._read_offset[tp]
            if read is not None and message.offset < read:
                continue
            if self.app.topics.acks_enabled_for(message.topic):
                self._in_hand[tp].add(message.offset)
                self._next[tp] = message.offset + 1
            await self.callback(message)
            self._read_offset[tp] = message.offset

    async def perform_seek(self) -> None:
        """Go back to where the events begin that are not at their end.

        Nothing is read until the caller has emptied the buffers and resumes the flow.
        """
        if self.flow_active:
            self.stop_flow()
        self._forget()
        await super().perform_seek()
        changelogs = self.app.tables.changelog_topics
        untouched = [
            tp
            for tp in self.assignment()
            if tp.topic not in changelogs and not self._read_offset[tp]
        ]
        if not untouched:
            return
        for tp, offset in (await self.earliest_offsets(*untouched)).items():
            await self.seek(tp, offset)


class Producer(aiokafka.Producer):
    """Rests between its looks for a Kafka that is away, and tells what it does not know yet.

    A send that nobody waits for any more fails in silence: who gave up on it has said so.
    """

    def key_partition(self, topic: str, key: bytes) -> TP:
        """Return the partition that a key belongs to.

        Raises
        ------
        KeyError
            Kafka has not told of the topic yet, as in the moments of a start.
        """
        try:
            return super().key_partition(topic, key)
        except (NotReady, TypeError):  # the client counts partitions that are None
            raise KeyError(topic) from None

    async def send(self, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Hand a record to the client; what is returned is done when Kafka has it."""
        return heard(cast(asyncio.Future[Any], await super().send(*args, **kwargs)))

    def _new_producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:
        producer = super()._new_producer(transactional_id)
        rest_between_looks(producer.client)
        return producer


def heard(sent: asyncio.Future[Any]) -> asyncio.Future[Any]:
    """Return a send whose failure is known even where whoever waited for it has given up.

    Else asyncio writes a line for each one, when its garbage is collected.
    """
    sent.add_done_callback(lambda done: done.cancelled() or done.exception())
    return sent


def rest_between_looks(client: AIOKafkaClient) -> None:
    """Have a client wait before it tells that nobody said where Kafka is."""
    look = client._metadata_update  # noqa: SLF001 - it has no other place for it

    async def look_and_rest(*args: Any) -> bool:
        found: bool = await look(*args)
        if not found:
            await asyncio.sleep(LOOK_S)
        return found

    client._metadata_update = look_and_rest  # noqa: SLF001


class Transport(aiokafka.Transport):
    """As Faust's, with our consumer and producer."""

    Consumer = Consumer
    Producer = Producer
