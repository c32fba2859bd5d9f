"""Faust's Kafka transport, with offsets that lose nothing and a cheaper way of reading.

Agents work on several events of a partition at once, and a later one may be acknowledged first.
Faust then commits past an earlier one, if that is the first after the committed offset; a worker
that is killed at that moment has lost it. Here what is committed is the oldest event in hand.

At the end of a rebalance Faust goes back to the committed offsets and then empties the buffers of
its streams. The Kafka client goes back only where one above 0 was committed, and what is read
between the two steps is emptied as well: either way the first events after it were lost.

Faust hands on each message with four tasks of asyncio, and asks Kafka again at once. Under load
that is a request for every message or two, which costs more CPU than what the message asks for.

A topic that feeds a table, and the table's own, have to have the same number of partitions, which
Kafka lets anybody raise. Then rows would be sought on other partitions than those that they are
on, and each worker would own partitions that do not belong together. So where the number is fixed,
the fixed one counts, whatever Kafka says, until the worker has come to its orderly end.

While Kafka is away, a producer that has something to send asks where it is, and again as soon as
that is refused, which costs most of a core.
"""

import asyncio
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.partitioner import DefaultPartitioner
from faust.assignor.partition_assignor import PartitionAssignor
from faust.exceptions import NotReady
from faust.streams import _current_event
from faust.transport.drivers import aiokafka
from faust.types import TP, Message
from faust.types.transports import TPorTopicSet
from mode import ServiceT

from deeplens_streams.broker.gathering import READ_EVERY_S, Pace, rest_between_requests
from deeplens_streams.broker.replaced_methods import require

#: Seconds without a sign of life after which a worker's partitions go to others, and those after
#: which others have them, recovered, unless there is much to recover.
SESSION_TIMEOUT_S, TAKEN_OVER_S = 10.0, 20.0
#: Seconds until a producer asks again where Kafka is when nobody has answered.
LOOK_S = 0.2

require("faust-streaming", PartitionAssignor, _perform_assignment=("cluster", "member_metadata"))
require(
    "faust-streaming",
    aiokafka.Consumer,
    ack=("message",),
    on_partitions_revoked=("revoked",),
    perform_seek=(),
    topic_partitions=("topic",),
    _drain_messages=("fetcher",),
    _filter_tps_with_pending_acks=("topics",),
    _new_offset=("tp",),
    _seek=("partition", "offset"),
)
require(
    "faust-streaming",
    aiokafka.Producer,
    key_partition=("topic", "key"),
    _new_producer=("transactional_id",),
)
require("aiokafka", AIOKafkaClient, _metadata_update=("cluster_metadata", "topics"))
require(
    "aiokafka",
    AIOKafkaProducer,
    _partition=("topic", "partition", "key", "value", "serialized_key", "serialized_value"),
)


#: Partitions by the name of a topic where their number is fixed.
FixedCounts = Mapping[str, int]


class Cluster:
    """Kafka's topics, with no more partitions than are fixed."""

    def __init__(self, cluster: ClusterMetadata, fixed: FixedCounts) -> None:
        self._cluster, self._fixed = cluster, fixed

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Return the partitions' numbers, as aiokafka does."""
        found: set[int] | None = self._cluster.partitions_for_topic(topic)
        fixed = self._fixed.get(topic)
        if found is None or fixed is None:
            return found
        return {number for number in found if number < fixed}


class Assignor(PartitionAssignor):
    """As Faust's, with the fixed numbers of partitions."""

    def _perform_assignment(self, cluster: ClusterMetadata, *args: Any) -> Any:
        fixed = cast(Transport, self.app.transport).fixed
        return super()._perform_assignment(cast(Any, Cluster(cluster, fixed)), *args)


class Consumer(aiokafka.Consumer):
    """Reads in bunches; commits and goes back so that no event is left out."""

    #: By partition: the events in hand by their offsets, and the offset after the last handed on.
    _in_hand: defaultdict[TP, dict[int, Message]]
    _next: dict[TP, int]

    def on_init(self) -> None:
        super().on_init()
        self._forget()

    def _forget(self) -> None:
        self._in_hand, self._next = defaultdict(dict), {}

    # Committing --------------------------------------------------------------------------

    def ack(self, message: Message) -> bool:
        """Note that an event is at its end."""
        if message.acked:
            return False
        message.acked = True
        in_hand = self._in_hand[message.tp]
        # One that was read before a rebalance says nothing of the same one, read again behind it.
        if in_hand.get(message.offset) is message:
            del in_hand[message.offset]
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

    def topic_partitions(self, topic: str) -> int | None:
        """Return how many partitions a topic has, or is to have."""
        fixed = cast(Transport, self.transport).fixed.get(topic)
        found: int | None = super().topic_partitions(topic)
        return found if fixed is None or found is None else min(found, fixed)

    # Reading -----------------------------------------------------------------------------

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Hand every message to the agents that read its topic, until the fetcher stops."""
        pace = Pace(READ_EVERY_S)
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
            await self.sleep(pace.rest_s())

    async def _hand_on(self, messages: Sequence[tuple[TP, Message]]) -> None:
        for tp, message in messages:
            if not self.flow_active:
                return
            read = self._read_offset[tp]
            if read is not None and message.offset < read:
                continue
            if self.app.topics.acks_enabled_for(message.topic):
                self._in_hand[tp][message.offset] = message
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

    async def _seek(self, partition: TP, offset: int) -> None:
        """Seek in the client's own thread, where a read may have the partition's records in hand.

        Faust does it from here, and a read that comes to them meanwhile ends the worker.
        """

        async def seek() -> None:
            self._thread.seek(partition, offset)

        await self._thread.call_thread(seek)


class Producer(aiokafka.Producer):
    """Rests between its requests, and between its looks for a Kafka that is away.

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
        rest_between_requests(producer, self.linger_ms / 1000)
        keep_partitions(producer, cast(Transport, self.transport).fixed)
        return producer


def heard(sent: asyncio.Future[Any]) -> asyncio.Future[Any]:
    """Return a send whose failure is known even where whoever waited for it has given up.

    Else asyncio writes a line for each one, when its garbage is collected.
    """
    sent.add_done_callback(lambda done: done.cancelled() or done.exception())
    return sent


def set_current_event(event: Any) -> None:
    """Have an event be the one that this task handles, by whose partition tables write."""
    _current_event.set(weakref.ref(event))


def rest_between_looks(client: AIOKafkaClient) -> None:
    """Have a client wait before it tells that nobody said where Kafka is."""
    look = client._metadata_update  # noqa: SLF001 - it has no other place for it

    async def look_and_rest(*args: Any) -> bool:
        found: bool = await look(*args)
        if not found:
            await asyncio.sleep(LOOK_S)
        return found

    client._metadata_update = look_and_rest  # noqa: SLF001


def keep_partitions(producer: AIOKafkaProducer, fixed: FixedCounts) -> None:
    """Have a producer choose among the fixed number of partitions, where there is one."""
    choose, by_key = producer._partition, DefaultPartitioner()  # noqa: SLF001 - it asks nobody else

    def _partition(  # noqa: PLR0917 - aiokafka's
        topic: str,
        partition: int | None,
        key: Any,
        value: Any,
        serialized_key: bytes | None,
        serialized_value: bytes | None,
    ) -> int:
        count = fixed.get(topic)
        if count is not None and partition is None and serialized_key is not None:
            known = producer._metadata.partitions_for_topic(topic)  # noqa: SLF001
            if known is not None and len(known) > count:
                return int(by_key(serialized_key, list(range(count)), []))
        return int(choose(topic, partition, key, value, serialized_key, serialized_value))

    producer._partition = _partition  # noqa: SLF001


class Transport(aiokafka.Transport):
    """As Faust's, with our consumer and producer.

    Attributes
    ----------
    fixed : the number of partitions of topics where it may not change.
    """

    Consumer = Consumer
    Producer = Producer

    def __init__(self, *args: Any, fixed: FixedCounts | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fixed: FixedCounts = fixed or {}
