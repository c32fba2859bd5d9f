"""What Kafka delivers reaches the agents once, in order; commits stop at what is in hand."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import RequestTimedOutError
from faust.transport.drivers import aiokafka
from faust.types import TP
from mode import Service
from mode.threads import QueueServiceThread

from deeplens_streams.broker import faust_transport
from deeplens_streams.broker.faust_transport import Cluster, Consumer, Producer, keep_partitions
from tests.support.asyncio_complaints import complaints_of

A, B = TP("a", 0), TP("a", 1)

Fetches = list[list[tuple[TP, int]]]


class Fetched(Consumer):
    """The consumer without Kafka: it reads what a test says and keeps what is handed on."""

    def __init__(self, *fetches: list[tuple[TP, int]]) -> None:
        self.handed: list[tuple[TP, int]] = []
        self.messages: dict[tuple[TP, int], Any] = {}
        self.on_message: Callable[[], Any] | None = None
        self._fetches = list(fetches)
        self._read_offset = defaultdict(lambda: None)
        self._committed_offset = defaultdict(lambda: None)
        Service.__init__(self)
        self.suspend_flow, self.can_resume_flow = asyncio.Event(), asyncio.Event()
        self.app = SimpleNamespace(  # type: ignore[assignment]
            topics=SimpleNamespace(acks_enabled_for=lambda _topic: True),
            tables=SimpleNamespace(changelog_topics=set()),
        )

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - Faust's
        if not self.flow_active:
            await self.can_resume_flow.wait()
        if not self._fetches:
            self._stopped.set()
            return
        for tp, offset in self._fetches.pop(0):
            message = SimpleNamespace(topic=tp.topic, offset=offset, tp=tp, acked=False)
            self.messages[tp, offset] = message
            yield tp, message

    async def callback(self, message: Any) -> None:
        if self.on_message is not None:
            await self.on_message()
        self.handed.append((message.tp, message.offset))

    def acknowledge(self, tp: TP, *offsets: int) -> None:
        for offset in offsets:
            assert self.ack(self.messages[tp, offset])

    def committable(self) -> dict[TP, int]:
        return self._filter_committable_offsets(list(self._filter_tps_with_pending_acks()))


@pytest.fixture(autouse=True)
def short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faust_transport, "READ_EVERY_S", 0.0)


async def drain(consumer: Fetched) -> None:
    fetcher: Any = SimpleNamespace(should_stop=False)
    async with asyncio.timeout(10):
        await consumer._drain_messages(fetcher)


async def test_every_message_is_handed_on_in_order() -> None:
    consumer = Fetched([(A, 0), (B, 0), (A, 1)], [], [(A, 2)])
    await drain(consumer)
    assert consumer.handed == [(A, 0), (B, 0), (A, 1), (A, 2)]


async def test_what_was_read_before_a_seek_is_not_handed_on_again() -> None:
    consumer = Fetched([(A, 3), (A, 4), (A, 5)])
    consumer._read_offset[A] = 5
    await drain(consumer)
    assert consumer.handed == [(A, 5)]


@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("committed", [False, True])
async def test_an_event_in_hand_is_never_committed(first: int, *, committed: bool) -> None:
    consumer = Fetched([(A, first), (A, first + 1), (A, first + 2)])
    if committed and first:
        consumer._committed_offset[A] = consumer._read_offset[A] = first
    await drain(consumer)
    consumer.acknowledge(A, first + 1)
    assert consumer.committable().get(A, first) == first
    consumer.acknowledge(A, first + 2)
    assert consumer.committable().get(A, first) == first
    consumer.acknowledge(A, first)
    assert consumer.committable() == {A: first + 3}


async def test_a_partition_is_committed_up_to_its_oldest_event_in_hand() -> None:
    consumer = Fetched([(A, 0), (A, 1), (B, 0), (A, 2)])
    await drain(consumer)
    consumer.acknowledge(A, 0, 2)
    consumer.acknowledge(B, 0)
    assert consumer.committable() == {A: 1, B: 1}


async def test_what_was_committed_is_not_committed_again() -> None:
    consumer = Fetched([(A, 0)])
    await drain(consumer)
    consumer.acknowledge(A, 0)
    consumer._committed_offset[A] = 1
    assert consumer.committable() == {}


async def test_what_retention_removed_does_not_stop_commits() -> None:
    consumer = Fetched([(A, 7), (A, 12)])
    consumer._committed_offset[A] = consumer._read_offset[A] = 3
    await drain(consumer)
    consumer.acknowledge(A, 7)
    assert consumer.committable() == {A: 12}
    consumer.acknowledge(A, 12)
    assert consumer.committable() == {A: 13}


async def test_an_event_is_acknowledged_once() -> None:
    consumer = Fetched([(A, 0)])
    await drain(consumer)
    consumer.acknowledge(A, 0)
    assert not consumer.ack(consumer.messages[A, 0])


async def test_an_event_of_before_a_rebalance_does_not_acknowledge_one_read_again() -> None:
    consumer = Fetched([(A, 0), (A, 1)])
    await drain(consumer)
    before = consumer.messages[A, 0]
    consumer._forget()
    consumer._read_offset.clear()
    consumer._fetches = [[(A, 0), (A, 1)]]
    consumer._stopped.clear()
    await drain(consumer)
    assert consumer.ack(before)
    assert consumer.committable() == {}
    consumer.acknowledge(A, 0)
    assert consumer.committable() == {A: 1}


async def test_what_a_table_reads_to_recover_is_not_committed() -> None:
    consumer = Fetched([(A, 0), (B, 0)])
    consumer.app.topics.acks_enabled_for = lambda topic: False  # type: ignore[method-assign]
    await drain(consumer)
    assert consumer.committable() == {}


async def test_a_partition_that_went_to_another_worker_is_not_committed() -> None:
    consumer = Fetched([(A, 0), (A, 1), (B, 0)])
    await drain(consumer)
    revoked: list[set[TP]] = []

    async def on_revoked(tps: set[TP]) -> None:
        revoked.append(tps)

    consumer._on_partitions_revoked = on_revoked
    consumer._active_partitions = consumer._paused_partitions = set()
    consumer._gap = consumer._acked = consumer._acked_index = {}  # type: ignore[assignment]
    consumer.app._start_span_from_rebalancing = lambda name: nullcontext()  # type: ignore[method-assign]
    await consumer.on_partitions_revoked({A})
    assert revoked == [{A}]
    consumer.acknowledge(A, 0, 1)
    consumer.acknowledge(B, 0)
    assert consumer.committable() == {B: 1}


async def test_the_client_seeks_in_its_own_thread() -> None:
    class Client(QueueServiceThread):
        def seek(self, partition: TP, offset: int) -> None:
            sought.append((partition, offset, threading.current_thread()))

    sought: list[tuple[TP, int, threading.Thread]] = []
    consumer = Fetched()
    consumer._thread = Client()  # type: ignore[assignment]
    async with consumer._thread:
        await consumer.seek(A, 7)
    ((partition, offset, thread),) = sought
    assert (partition, offset) == (A, 7)
    assert thread is not threading.current_thread()
    assert consumer._read_offset[A] == 7


async def test_a_rebalance_interrupts_and_what_is_left_counts_as_unread() -> None:
    consumer = Fetched([(A, 0), (A, 1), (A, 2)])

    async def full_queue() -> None:
        if len(consumer.handed) == 1:
            consumer.suspend_flow.set()
            await asyncio.Event().wait()

    consumer.on_message = full_queue
    await drain(consumer)
    assert consumer.handed == [(A, 0)]
    assert consumer._read_offset[A] == 0
    # The message that was interrupted counts as in hand until it is read again.
    consumer.acknowledge(A, 0)
    assert consumer.committable() == {A: 1}


async def test_nothing_is_handed_on_between_a_seek_and_the_flow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The streams' buffers are emptied in between: what came before that would be lost."""
    consumer = Fetched([(A, 0), (A, 1), (A, 2)], [(A, 0), (A, 1), (A, 2)])
    interrupted = asyncio.Event()
    sought: list[tuple[TP, int]] = []

    async def second_message_waits() -> None:
        if consumer.handed:
            interrupted.set()
            await asyncio.Event().wait()

    async def go_back(self: Consumer) -> None:
        assert not self.flow_active

    async def earliest(*tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 0)

    async def seek(tp: TP, offset: int) -> None:
        sought.append((tp, offset))

    monkeypatch.setattr(aiokafka.Consumer, "perform_seek", go_back)
    monkeypatch.setattr(consumer, "earliest_offsets", earliest)
    monkeypatch.setattr(consumer, "seek", seek)
    monkeypatch.setattr(consumer, "assignment", lambda: {A})
    consumer.on_message = second_message_waits
    draining = asyncio.create_task(drain(consumer))
    await interrupted.wait()
    await consumer.perform_seek()
    assert sought == [(A, 0)]
    for _ in range(100):
        await asyncio.sleep(0)
    assert consumer.handed == [(A, 0)]
    assert consumer.committable() == {}

    consumer.handed.clear()
    consumer.on_message = None
    consumer.resume_flow()
    await draining
    assert consumer.handed == [(A, 0), (A, 1), (A, 2)]
    consumer.acknowledge(A, 0)
    assert consumer.committable() == {A: 1}


async def test_a_producer_rests_between_looks_for_a_kafka_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, looks = [False, True], 0

    async def look(*_args: Any) -> bool:
        nonlocal looks
        looks += 1
        return answers.pop(0)

    client = SimpleNamespace(_metadata_update=look)
    faust_transport.rest_between_looks(client)
    monkeypatch.setattr(faust_transport, "LOOK_S", 3600.0)
    looking = asyncio.create_task(client._metadata_update())
    for _ in range(10):
        await asyncio.sleep(0)
    assert (looks, looking.done()) == (1, False)
    looking.cancel()
    assert await client._metadata_update()


async def test_a_producer_that_has_not_heard_of_a_topic_says_so() -> None:
    """A worker answers requests in the moments in which it connects."""
    producer = Producer.__new__(Producer)
    client = SimpleNamespace(_metadata=ClusterMetadata())
    client._partition = partial(AIOKafkaProducer._partition, client)
    for connecting in (None, client):
        producer._producer = connecting
        with pytest.raises(KeyError):
            producer.key_partition("some-changelog", b"a key")


async def test_a_send_that_fails_behind_who_gave_up_says_nothing_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[asyncio.Future[None]] = []

    async def send(_self: Any, *_record: Any) -> asyncio.Future[None]:
        sent.append(asyncio.get_running_loop().create_future())
        return sent[-1]

    monkeypatch.setattr(aiokafka.Producer, "send", send)
    producer = Producer.__new__(Producer)

    async def given_up(send_one: Callable[..., Any]) -> None:
        await send_one("a topic", b"a key", b"a value")
        sent.pop().set_exception(RequestTimedOutError())

    assert await complaints_of(partial(given_up, producer.send)) == []
    # And it would be said.
    assert len(await complaints_of(partial(given_up, partial(send, producer)))) == 1


# Partitions that somebody added ----------------------------------------------------------


def cluster(**counts: int) -> ClusterMetadata:
    """Return what Kafka says of topics."""
    found = ClusterMetadata()
    found._partitions = {
        topic: {number: SimpleNamespace(leader=1) for number in range(count)}
        for topic, count in counts.items()
    }
    return found


async def test_a_producer_holds_on_to_fixed_numbers_of_partitions() -> None:
    producer = AIOKafkaProducer(bootstrap_servers="localhost:1")
    keys = [f"img_{number}".encode() for number in range(100)]

    def partitions(topic: str) -> list[int]:
        return [
            producer._partition(
                topic,
                partition=None,
                key=None,
                value=None,
                serialized_key=key,
                serialized_value=b"",
            )
            for key in keys
        ]

    producer._metadata = cluster(fixed=6, other=6)
    before = partitions("fixed")
    keep_partitions(producer, {"fixed": 6})
    assert partitions("fixed") == partitions("other") == before
    producer._metadata = cluster(fixed=8, other=8)
    assert partitions("fixed") == before
    assert partitions("other") != before
    assert producer._partition("fixed", 5, None, None, keys[0], b"") == 5
    await producer.stop()


def test_no_worker_owns_more_than_the_fixed_numbers_of_partitions() -> None:
    seen = Cluster(cluster(fixed=8, other=8, fewer=1), {"fixed": 6, "fewer": 2, "unknown": 3})
    assert seen.partitions_for_topic("fixed") == set(range(6))
    assert seen.partitions_for_topic("other") == set(range(8))
    assert seen.partitions_for_topic("fewer") == {0}
    assert seen.partitions_for_topic("unknown") is None
