"""A few requests go at once; where more come, what comes meanwhile goes together."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.producer.message_accumulator import MessageAccumulator

from deeplens_streams.broker import gathering
from deeplens_streams.broker.gathering import AT_ONCE, Pace, rest_between_requests

REST_S = 0.5
FIRST, SECOND = TopicPartition("t", 0), TopicPartition("t", 1)


class Cluster:
    def leader_for_partition(self, _partition: TopicPartition) -> int:
        return 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return what has time go by, for the producer and for us."""
    now = [1000.0]
    time = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr(gathering, "time", time)
    monkeypatch.setattr("aiokafka.producer.message_accumulator.time", time)

    def goes_by(seconds: float) -> None:
        now[0] += seconds

    return goes_by


@pytest.fixture
async def accumulator(clock: Callable[[float], None]) -> Any:
    del clock
    made = MessageAccumulator(Cluster(), 300, 0, 30, loop=asyncio.get_running_loop())
    rest_between_requests(SimpleNamespace(_message_accumulator=made), REST_S)
    return made


def drained(accumulator: Any) -> set[TopicPartition]:
    """Return the partitions that a request would have now."""
    nodes, _ = accumulator.drain_by_nodes(ignore_nodes=())
    return set(nodes.get(1, ()))


async def add(accumulator: Any, partition: TopicPartition, size: int = 10) -> None:
    await accumulator.add_message(partition, b"key", b"v" * size, timeout=1)


async def pace_out(accumulator: Any) -> None:
    """Make all the requests that follow one another at once."""
    for _ in range(AT_ONCE):
        await add(accumulator, FIRST)
        await add(accumulator, SECOND)
        assert drained(accumulator) == {FIRST, SECOND}


async def test_a_few_go_at_once_and_again_after_a_silence(
    accumulator: Any, clock: Callable[[float], None]
) -> None:
    for _ in range(2):
        await pace_out(accumulator)
        clock(AT_ONCE * REST_S + 0.01)


async def test_no_request_is_none(accumulator: Any) -> None:
    for _ in range(2 * AT_ONCE):
        assert drained(accumulator) == set()
    await pace_out(accumulator)


async def test_what_comes_in_the_rest_goes_together_when_it_ends(
    accumulator: Any, clock: Callable[[float], None]
) -> None:
    await pace_out(accumulator)
    await add(accumulator, FIRST)
    assert drained(accumulator) == {FIRST}
    clock(REST_S / 2)
    await add(accumulator, FIRST)
    assert drained(accumulator) == set()
    clock(REST_S / 4)
    await add(accumulator, SECOND)
    assert drained(accumulator) == set()
    clock(REST_S / 4 + 0.01)
    assert drained(accumulator) == {FIRST, SECOND}
    # And the rest begins anew.
    await add(accumulator, FIRST)
    assert drained(accumulator) == set()


async def test_a_full_batch_does_not_wait(accumulator: Any, clock: Callable[[float], None]) -> None:
    await pace_out(accumulator)
    await add(accumulator, FIRST)
    assert drained(accumulator) == {FIRST}
    clock(REST_S / 2)
    await add(accumulator, FIRST, 150)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await add(accumulator, FIRST, 150)  # there is no room for it before the first has gone
    assert drained(accumulator) == {FIRST}


def test_many_requests_are_paced(clock: Callable[[float], None]) -> None:
    pace = Pace(0.1)
    assert [pace.rest_s() for _ in range(AT_ONCE)] == pytest.approx([0] * AT_ONCE)
    assert [pace.rest_s() for _ in range(2)] == pytest.approx([0.1, 0.2])
    clock(0.2)
    assert pace.rest_s() == pytest.approx(0.1)
    clock(10.0)
    assert [pace.rest_s() for _ in range(AT_ONCE)] == pytest.approx([0] * AT_ONCE)
