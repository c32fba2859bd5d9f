"""A table tells when its changelog has what was written, and says again what was refused."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import faust
import pytest
import structlog
from aiokafka.errors import KafkaConnectionError, RequestTimedOutError
from faust.types import TP, RecordMetadata

from deeplens_streams.broker.faust_transport import heard
from deeplens_streams.errors import BrokerUnavailable
from deeplens_streams.metrics import OFFSETS_NOT_NOTED
from tables.durable import DurableTable
from tests.support.asyncio_complaints import complaints_of

CHANGELOG = "t-rows-changelog"

Sent = tuple[bytes, bytes | None, int]


class FakeProducer:
    """Takes changes, and has them end as a test says."""

    def __init__(self) -> None:
        self.taken: list[Sent] = []
        self.futures: list[asyncio.Future[RecordMetadata]] = []
        self.refuses: Exception | None = None

    async def send(  # noqa: PLR0917 - Faust's
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        partition: int,
        timestamp: None,
        headers: None,
    ) -> "asyncio.Future[RecordMetadata]":
        assert (topic, timestamp, headers) == (CHANGELOG, None, None)
        if self.refuses is not None:
            raise self.refuses
        self.taken.append((key, value, partition))
        self.futures.append(heard(asyncio.get_running_loop().create_future()))
        return self.futures[-1]

    def accept(self, *offsets: int) -> None:
        """Have what is on its way arrive, at these offsets or in order."""
        waiting = [each for each in self.futures if not each.done()]
        for future, offset in zip(waiting, offsets or range(len(waiting)), strict=True):
            future.set_result(RecordMetadata(CHANGELOG, 0, TP(CHANGELOG, 0), offset, None, None))

    def refuse(self) -> None:
        for future in self.futures:
            if not future.done():
                future.set_exception(RequestTimedOutError())


class FakeAssignor:
    def __init__(self) -> None:
        self.active = {TP(CHANGELOG, 0)}

    def is_active(self, partition: TP) -> bool:
        return partition in self.active

    def assigned_standbys(self) -> set[TP]:
        return set()


@pytest.fixture
async def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DurableTable]:
    app = faust.App(
        "t", store="rocksdb://", Table=DurableTable, autodiscover=False, datadir=str(tmp_path)
    )
    made = cast(DurableTable, app.Table("rows", key_type=bytes, value_type=int, partitions=1))
    app.producer = cast(Any, FakeProducer())
    app.assignor = cast(Any, FakeAssignor())

    async def started() -> Any:
        return app.producer

    monkeypatch.setattr(app, "maybe_start_producer", started)
    monkeypatch.setattr(made.store, "partition_of", lambda _key: 0)
    yield made
    for database in made.store._dbs.values():
        database.close()


def producer(table: DurableTable) -> FakeProducer:
    return cast(FakeProducer, table.app.producer)


async def begin(table: DurableTable) -> "asyncio.Task[None]":
    """Have the table settle, up to where its changes are on their way."""
    settling = asyncio.create_task(table.settled())
    for _ in range(5):
        await asyncio.sleep(0)
    return settling


async def be_refused(table: DurableTable) -> None:
    """Have Kafka refuse a row."""
    table[b"a"] = 1
    settling = await begin(table)
    producer(table).refuse()
    with pytest.raises(BrokerUnavailable):
        await settling


async def test_it_is_settled_at_once_without_a_change(table: DurableTable) -> None:
    await table.settled()
    assert producer(table).taken == []


async def test_it_is_settled_when_kafka_has_every_change(table: DurableTable) -> None:
    table[b"a"], table[b"b"] = 1, 2
    settling = await begin(table)
    first, second = producer(table).futures
    first.set_result(RecordMetadata(CHANGELOG, 0, TP(CHANGELOG, 0), 4, None, None))
    await asyncio.sleep(0)
    assert not settling.done()
    assert not table.is_settled
    second.set_result(RecordMetadata(CHANGELOG, 0, TP(CHANGELOG, 0), 5, None, None))
    await settling
    assert table.is_settled
    assert table.store.persisted_offset(TP(CHANGELOG, 0)) == 5
    # Nothing is said again.
    await table.settled()
    assert producer(table).taken == [(b"a", b"1", 0), (b"b", b"2", 0)]


async def test_of_a_row_that_changed_twice_the_last_change_is_said(table: DurableTable) -> None:
    table[b"a"], table[b"b"] = 1, 2
    table[b"a"] = 3
    assert table[b"a"] == 3
    settling = await begin(table)
    producer(table).accept()
    await settling
    assert sorted(producer(table).taken) == [(b"a", b"3", 0), (b"b", b"2", 0)]


async def test_what_changes_while_others_are_on_their_way_is_said_behind_them(
    table: DurableTable,
) -> None:
    table[b"a"] = 1
    settling = await begin(table)
    table[b"a"] = 2
    following = await begin(table)
    assert producer(table).taken == [(b"a", b"1", 0)], "one at a time"
    producer(table).accept(0)
    await settling
    await asyncio.sleep(0)
    assert not table.is_settled
    assert not following.done()
    producer(table).accept(1)
    await following
    assert producer(table).taken[1:] == [(b"a", b"2", 0)]
    assert table.is_settled


async def test_what_was_refused_is_said_again(table: DurableTable) -> None:
    table[b"a"], table[b"b"] = 1, 2
    settling = await begin(table)
    first, _ = producer(table).futures
    first.set_exception(RequestTimedOutError())
    producer(table).accept(7)
    with pytest.raises(BrokerUnavailable):
        await settling
    table[b"c"] = 3
    settling = await begin(table)
    assert producer(table).taken[2:] == [(b"a", b"1", 0), (b"c", b"3", 0)]
    producer(table).accept()
    await settling


async def test_an_older_change_is_not_said_again_behind_a_later_one(table: DurableTable) -> None:
    table[b"a"] = 1
    settling = await begin(table)
    table[b"a"] = 2
    producer(table).refuse()
    with pytest.raises(BrokerUnavailable):
        await settling
    settling = await begin(table)
    producer(table).accept()
    await settling
    assert producer(table).taken == [(b"a", b"1", 0), (b"a", b"2", 0)]


async def test_what_could_not_be_handed_over_is_said_again(table: DurableTable) -> None:
    table[b"a"] = 1
    producer(table).refuses = KafkaConnectionError()
    with pytest.raises(BrokerUnavailable, match="KafkaConnectionError"):
        await table.settled()
    producer(table).refuses = None
    settling = await begin(table)
    producer(table).accept()
    await settling
    assert producer(table).taken == [(b"a", b"1", 0)]


async def test_a_removal_is_said_as_one(table: DurableTable) -> None:
    table[b"a"] = 1
    del table[b"a"]
    del table[b"was gone from here"]
    for _ in range(2):
        settling = await begin(table)
        producer(table).refuse()
        with pytest.raises(BrokerUnavailable):
            await settling
    assert producer(table).taken == 2 * [(b"a", None, 0), (b"was gone from here", None, 0)]
    assert b"a" not in table


async def test_what_another_worker_has_by_now_is_not_said_again(table: DurableTable) -> None:
    await be_refused(table)
    cast(FakeAssignor, table.app.assignor).active.clear()
    await table.settled()
    assert len(producer(table).taken) == 1
    assert table.is_settled


async def test_what_another_worker_has_before_it_is_said_is_neither_said_nor_written(
    table: DurableTable,
) -> None:
    table[b"a"] = 1
    table.store._dbs.pop(0).close()
    cast(FakeAssignor, table.app.assignor).active.clear()
    await table.settled()
    assert producer(table).taken == []
    assert table.store._dbs == {}
    assert table.is_settled


async def revoke(table: DurableTable) -> None:
    """Have another worker get the table's partition, and this one get it back."""
    await table.on_rebalance(set(), {TP(CHANGELOG, 0)}, set())
    assert table.store._dbs == {}


async def test_a_partition_that_comes_back_can_be_opened_though_a_change_was_refused(
    table: DurableTable,
) -> None:
    await be_refused(table)
    held = table._unsettled[b"a"]
    await revoke(table)
    assert table.store.put(0, b"a", b"2") is not held.written_to


async def test_a_refused_change_does_not_undo_what_another_worker_changed_meanwhile(
    table: DurableTable,
) -> None:
    await be_refused(table)
    await revoke(table)
    table.store.put(0, b"a", b"2")
    await table.settled()
    assert table.is_settled
    assert len(producer(table).taken) == 1
    assert table[b"a"] == 2


async def test_what_arrives_behind_a_revocation_notes_no_offset_here(table: DurableTable) -> None:
    table[b"a"] = 1
    settling = await begin(table)
    await revoke(table)
    producer(table).accept(7)
    await settling
    assert table.store._dbs == {}
    assert table.store.persisted_offset(TP(CHANGELOG, 0)) is None


async def test_who_is_cancelled_cancels_no_change(table: DurableTable) -> None:
    table[b"a"] = 1
    settling = await begin(table)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert not producer(table).futures[0].cancelled()
    assert not table.is_settled


async def test_a_change_that_fails_behind_who_gave_up_says_nothing_by_itself(
    table: DurableTable,
) -> None:
    async def given_up() -> None:
        table[b"a"] = 1
        settling = await begin(table)
        settling.cancel()
        await asyncio.wait([settling])
        producer(table).refuse()
        producer(table).futures.clear()

    assert await complaints_of(given_up) == []


async def test_an_offset_that_cannot_be_noted_is_noted_with_the_next_change(
    table: DurableTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[int] = []
    is_full = False
    before = OFFSETS_NOT_NOTED.labels("rows")._value.get()

    def note(_partition: TP, offset: int) -> None:
        if is_full:
            raise Exception("IO error: No space left on device")
        noted.append(offset)

    monkeypatch.setattr(table.store, "set_persisted_offset", note)

    async def arrives(offset: int) -> None:
        table[b"a"] = offset
        settling = await begin(table)
        producer(table).accept(offset)
        await settling

    with structlog.testing.capture_logs() as lines:
        await arrives(1)
        for _ in range(2):
            is_full = True
            for offset in (2, 3, 4):
                await arrives(offset)
            is_full = False
            await arrives(5)
    assert noted == [1, 5, 5]
    assert [each["reason"] for each in lines] == 2 * ["IO error: No space left on device"]
    assert OFFSETS_NOT_NOTED.labels("rows")._value.get() - before == 6
