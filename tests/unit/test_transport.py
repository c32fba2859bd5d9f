"""What Kafka delivers reaches the agents once, in order, and a rebalance interrupts it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from mode import Service

from deeplens_streams import transport
from deeplens_streams.transport import Consumer

A, B = TP("a", 0), TP("a", 1)

Fetches = list[list[tuple[TP, int]]]


class Fetched(Consumer):
    """The consumer without Kafka: it reads what a test says and keeps what is handed on."""

    def __init__(self, *fetches: list[tuple[TP, int]]) -> None:
        self.handed: list[tuple[TP, int]] = []
        self.gaps: list[tuple[TP, int, int]] = []
        self.on_message: Callable[[], Any] | None = None
        self._fetches = list(fetches)
        self._read_offset = defaultdict(lambda: None)
        Service.__init__(self)
        self.suspend_flow = asyncio.Event()
        self.app = SimpleNamespace(topics=SimpleNamespace(acks_enabled_for=lambda _topic: True))  # type: ignore[assignment]

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - Faust's
        if not self._fetches:
            self._stopped.set()
            return
        for tp, offset in self._fetches.pop(0):
            yield tp, SimpleNamespace(topic=tp.topic, offset=offset, tp=tp)

    async def callback(self, message: Any) -> None:
        if self.on_message is not None:
            await self.on_message()
        self.handed.append((message.tp, message.offset))

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        self.gaps.append((tp, offset_from, offset_to))


@pytest.fixture(autouse=True)
def short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "REST_S", 0.0)


async def drain(consumer: Fetched) -> None:
    fetcher: Any = SimpleNamespace(should_stop=False)
    async with asyncio.timeout(10):
        await consumer._drain_messages(fetcher)


async def test_every_message_is_handed_on_in_order() -> None:
    consumer = Fetched([(A, 0), (B, 0), (A, 1)], [], [(A, 2)])
    await drain(consumer)
    assert consumer.handed == [(A, 0), (B, 0), (A, 1), (A, 2)]
    assert not consumer.gaps


async def test_what_was_read_before_a_seek_is_not_handed_on_again() -> None:
    consumer = Fetched([(A, 3), (A, 4), (A, 5)])
    consumer._read_offset[A] = 5
    await drain(consumer)
    assert consumer.handed == [(A, 5)]


async def test_a_gap_ends_before_the_message_after_it() -> None:
    consumer = Fetched([(A, 7)])
    consumer._read_offset[A] = 3
    await drain(consumer)
    # Offset 7 itself must stay open until its agent has acknowledged it.
    assert consumer.gaps == [(A, 4, 6)]


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
