"""A table tells when its changelog has what was written, and says again what was refused."""

import asyncio
from typing import Any, cast

import faust
import pytest
import structlog
from aiokafka.errors import RequestTimedOutError
from faust.types import TP, FutureMessage, RecordMetadata

from deeplens_streams.errors import BrokerUnavailable
from deeplens_streams.metrics import OFFSETS_NOT_NOTED
from tables.durable import DurableTable
from tests.complaints import complaints_of

CHANGELOG = "t-rows-changelog"


class FullStore:
    """Has room or not; the offsets that it could note."""

    def __init__(self) -> None:
        self.is_full, self.noted = False, list[int]()

    def set_persisted_offset(self, _partition: TP, offset: int) -> None:
        if self.is_full:
            raise Exception("IO error: No space left on device")
        self.noted.append(offset)


class FakeProducer:
    """Takes changes, and has them end as a test says."""

    def __init__(self) -> None:
        self.taken: list[FutureMessage] = []

    def send_soon(self, change: FutureMessage) -> None:
        self.taken.append(change)

    def accept(self, change: FutureMessage, offset: int = 0) -> None:
        partition = TP(CHANGELOG, 0)
        change.set_result(RecordMetadata(CHANGELOG, 0, partition, offset, None, None))


class FakeAssignor:
    def __init__(self) -> None:
        self.active = {TP(CHANGELOG, 0)}

    def is_active(self, partition: TP) -> bool:
        return partition in self.active


@pytest.fixture
def table() -> DurableTable:
    app = faust.App("t", store="memory://", Table=DurableTable, autodiscover=False)
    made = cast(DurableTable, app.Table("rows", key_type=bytes, partitions=1))
    app.producer = cast(Any, FakeProducer())
    app.assignor = cast(Any, FakeAssignor())
    return made


def producer(table: DurableTable) -> FakeProducer:
    return cast(FakeProducer, table.app.producer)


async def test_it_is_settled_at_once_without_a_change(table: DurableTable) -> None:
    await table.settled()


async def test_it_is_settled_when_kafka_has_every_change(table: DurableTable) -> None:
    table.send_changelog(0, b"a", 1)
    table.send_changelog(0, b"b", 2)
    settled = asyncio.create_task(table.settled())
    producer(table).accept(producer(table).taken[0])
    await asyncio.sleep(0)
    assert not settled.done()
    producer(table).accept(producer(table).taken[1])
    await settled
    # Nothing is said again.
    await table.settled()
    assert len(producer(table).taken) == 2


async def test_the_last_change_of_each_key_is_said_again(table: DurableTable) -> None:
    for key, value in ((b"a", 1), (b"b", 2), (b"a", 3)):
        table.send_changelog(0, key, value)
    first, second, third = producer(table).taken
    first.set_exception(RequestTimedOutError())
    producer(table).accept(second)
    producer(table).accept(third)
    with pytest.raises(BrokerUnavailable):
        await table.settled()
    settled = asyncio.create_task(table.settled())
    await asyncio.sleep(0)
    again = producer(table).taken[3:]
    assert [(each.message.key, each.message.value) for each in again] == [
        (b"a", b"3"),
        (b"b", b"2"),
    ]
    assert {each.message.partition for each in again} == {0}
    for each in again:
        producer(table).accept(each)
    await settled


async def test_a_removal_is_said_again_as_one(table: DurableTable) -> None:
    table.send_changelog(0, b"a", None, value_serializer="raw")
    producer(table).taken[0].set_exception(RequestTimedOutError())
    with pytest.raises(BrokerUnavailable):
        await table.settled()
    settled = asyncio.create_task(table.settled())
    await asyncio.sleep(0)
    again = producer(table).taken[1].message
    assert (again.key, again.value, again.value_serializer) == (b"a", None, "raw")
    producer(table).accept(producer(table).taken[1])
    await settled


async def test_what_another_worker_has_by_now_is_not_said_again(table: DurableTable) -> None:
    table.send_changelog(0, b"a", 1)
    producer(table).taken[0].set_exception(RequestTimedOutError())
    with pytest.raises(BrokerUnavailable):
        await table.settled()
    cast(FakeAssignor, table.app.assignor).active.clear()
    await table.settled()
    assert len(producer(table).taken) == 1


async def test_who_is_cancelled_cancels_no_change(table: DurableTable) -> None:
    table.send_changelog(0, b"a", 1)
    settled = asyncio.create_task(table.settled())
    await asyncio.sleep(0)
    settled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settled
    assert not producer(table).taken[0].cancelled()


async def test_a_change_that_fails_behind_who_gave_up_says_nothing_by_itself(
    table: DurableTable,
) -> None:
    async def given_up() -> None:
        table.send_changelog(0, b"a", 1)
        settled = asyncio.create_task(table.settled())
        await asyncio.sleep(0)
        settled.cancel()
        await asyncio.wait([settled])
        producer(table).taken.pop().set_exception(RequestTimedOutError())

    assert await complaints_of(given_up) == []


async def test_an_offset_that_cannot_be_noted_is_noted_with_the_next_change(
    table: DurableTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FullStore()
    monkeypatch.setattr(table, "_data", store)
    before = OFFSETS_NOT_NOTED.labels("rows")._value.get()

    def arrives(offset: int) -> None:
        table.send_changelog(0, b"a", offset)
        sent = producer(table).taken[-1]
        producer(table).accept(sent, offset)
        assert sent.message.callback is not None
        sent.message.callback(sent)  # as Faust's producer does

    with structlog.testing.capture_logs() as lines:
        arrives(1)
        for _ in range(2):
            store.is_full = True
            for offset in (2, 3, 4):
                arrives(offset)
            store.is_full = False
            arrives(5)
    assert store.noted == [1, 5, 5]
    assert [each["reason"] for each in lines] == 2 * ["IO error: No space left on device"]
    assert OFFSETS_NOT_NOTED.labels("rows")._value.get() - before == 6
    await table.settled()
