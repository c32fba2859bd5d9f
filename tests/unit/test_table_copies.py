"""Which copies of a partition are gone on with, and what becomes of a damaged one."""

import asyncio
import gc
import os
from collections.abc import AsyncGenerator, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import faust
import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from deeplens_streams.errors import TableUnavailable
from deeplens_streams.metrics import PARTITIONS_REPLACED, ROWS_UNREADABLE
from models.tenants import Usage
from tables.changelog import Changelogs, Extent, fault, safe_age_ms
from tables.damage import KEPT, Reason, TableFolderUnusable, is_damage, put_aside, remove_old
from tables.durable import Change, DurableTable
from tables.errors import table_faults
from tables.lanes import NotNow
from tables.rocksdb import PartitionStore

DAY_MS = 86_400_000
CHANGELOG = "t-rows-changelog"
ROWS = 3000


@pytest.mark.parametrize(
    ("stored", "extent", "reason"),
    [
        (9, Extent(0, 10, 4), None),  # the whole changelog is read
        (9, Extent(0, 10, None), None),  # and nothing was written for long
        (4, Extent(0, 10, 3), None),  # what is not read is young
        (4, Extent(0, 10, 5), None),
        (4, Extent(0, 10, 6), Reason.TOO_OLD),  # offset 5 may have been a deletion
        (4, Extent(0, 10, None), Reason.TOO_OLD),  # and so may be all that is left
        (4, Extent(5, 10, 5), None),
        (4, Extent(6, 10, 6), Reason.TOO_OLD),  # the changelog begins behind what is not read
        (4, Extent(6, 10, 5), Reason.TOO_OLD),
        (9, Extent(10, 10, None), None),
        (10, Extent(0, 10, 4), Reason.AHEAD),
        (0, Extent(0, 0, None), Reason.AHEAD),  # Kafka is empty
    ],
)
def test_a_copy_is_gone_on_with_only_if_all_that_it_has_not_read_is_young(
    stored: int, extent: Extent, reason: Reason | None
) -> None:
    assert fault(stored, extent) is reason


def test_a_copy_of_another_cluster_is_no_copy() -> None:
    whole = Extent(0, 10, 0)
    assert fault(9, whole, made_of="a", cluster="b") is Reason.OTHER_CLUSTER
    for made_of, cluster in (("a", "a"), (None, "a"), ("a", None)):
        assert fault(9, whole, made_of=made_of, cluster=cluster) is None


def test_what_a_copy_may_have_missed_is_younger_than_half_of_what_deletions_are_kept() -> None:
    assert safe_age_ms(100) == 50
    assert safe_age_ms(None) == safe_age_ms(DAY_MS) == DAY_MS // 2
    # It may be set to so much since an hour ago.
    assert safe_age_ms(7 * DAY_MS) == DAY_MS // 2


@dataclass
class FakeReader:
    """A changelog in memory."""

    values: dict[int, tuple[bytes, bytes | None]] = field(default_factory=dict)
    extent: Extent | None = None
    failures: int = 0
    cluster: str | None = "one"

    async def look(self, partitions: Collection[TP]) -> Changelogs:
        end = max(self.values, default=-1) + 1
        extent = self.extent or Extent(0, end, 0)
        return Changelogs(self.cluster, dict.fromkeys(partitions, extent))

    async def records(self, partition: TP, start: int) -> AsyncGenerator[list[Any]]:
        if self.failures:
            self.failures -= 1
            raise KafkaConnectionError
        for offset, (key, value) in sorted(self.values.items()):
            if offset >= start:
                yield [Record(offset, key, value, partition.partition)]
        yield []


@dataclass
class Record:
    offset: int
    key: bytes
    value: bytes | None
    partition: int

    @property
    def tp(self) -> TP:
        return TP(CHANGELOG, self.partition)


@dataclass
class Event:
    message: Record


class FakeAssignor:
    def assigned_standbys(self) -> set[TP]:
        return set()

    def is_active(self, _partition: TP) -> bool:
        return True


class FakeProducer:
    async def flush(self) -> None:
        pass

    def key_partition(self, topic: str, key: bytes) -> TP:
        return TP(topic, key[-1] % 2)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> FakeReader:
    reader = FakeReader()
    monkeypatch.setattr(PartitionStore, "changelog", reader)
    monkeypatch.setattr("tables.copies._RETRY_S", 0.0)
    monkeypatch.setattr("tables.mending._RETRY_S", 0.0)
    return reader


@pytest.fixture
async def make(tmp_path: Path, reader: FakeReader) -> Callable[[], PartitionStore]:
    def store() -> PartitionStore:
        app = faust.App(
            "t", store="rocksdb://", Table=DurableTable, autodiscover=False, datadir=str(tmp_path)
        )
        table = app.Table("rows", key_type=bytes, value_type=Usage, partitions=2)
        app.producer = cast(Any, FakeProducer())
        app.assignor = cast(Any, FakeAssignor())
        return cast(PartitionStore, cast(Any, table).data)

    return store


def row(number: int) -> tuple[bytes, bytes]:
    """Return a row of partition 0: what is to be read in a block is not the next one's."""
    padding = os.urandom(350).hex()
    return b"key%06d\0" % number, b'{"images":%d,"bytes":1,"x":"%s"}' % (number, padding.encode())


def fill(store: PartitionStore, reader: FakeReader) -> Path:
    """Write rows as the changelog has them, close, and return the folder."""
    reader.values = {number: row(number) for number in range(ROWS)}
    messages = [Record(offset, *each, 0) for offset, each in reader.values.items()]
    database = store._db_for_partition(0)
    for start in range(0, ROWS, 100):
        store.write(database, messages[start : start + 100])
    database.flush()
    close(store)
    return store.partition_path(0)


def close(store: PartitionStore) -> None:
    for database in store._dbs.values():
        database.close()
    store._dbs.clear()
    gc.collect()


def tables(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.sst"))


def overwrite(path: Path, part: float = 0.4) -> None:
    """Damage a few blocks in the middle of a file, and keep its length."""
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * part))
        file.write(os.urandom(2000))


def only_file(folder: Path) -> None:
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()
    folder.write_text("not a folder")


#: What RocksDB finds at once, and what it says nothing of: a manifest that was cut short.
BROKEN = {
    "a table is cut": lambda folder: os.truncate(tables(folder)[0], 1000),
    "a table is empty": lambda folder: os.truncate(tables(folder)[0], 0),
    "a table is gone": lambda folder: tables(folder)[0].unlink(),
    "the manifest is gone": lambda folder: next(folder.glob("MANIFEST*")).unlink(),
    "the manifest is empty": lambda folder: os.truncate(next(folder.glob("MANIFEST*")), 0),
    "the manifest is cut": lambda folder: os.truncate(next(folder.glob("MANIFEST*")), 150),
    "the manifest is noise": lambda folder: next(folder.glob("MANIFEST*")).write_bytes(b"x" * 999),
    "CURRENT is empty": lambda folder: os.truncate(folder / "CURRENT", 0),
    "CURRENT is gone": lambda folder: (folder / "CURRENT").unlink(),
    "CURRENT names none": lambda folder: (folder / "CURRENT").write_text("MANIFEST-999999\n"),
    "a file is in its place": only_file,
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_damaged_copy_is_put_aside_at_the_start_and_read_anew(
    make: Callable[[], PartitionStore], reader: FakeReader, name: str
) -> None:
    folder = fill(make(), reader)
    cast(Callable[[Path], None], BROKEN[name])(folder)
    before = PARTITIONS_REPLACED.labels("rows", "corrupt")._value.get()
    store = make()
    tps = {TP(CHANGELOG, 0)}
    await store.on_rebalance(tps, set(), tps, store.app.consumer_generation_id)
    assert store.recovering == {0: Reason.CORRUPT}
    assert store.persisted_offset(TP(CHANGELOG, 0)) is None
    assert PARTITIONS_REPLACED.labels("rows", "corrupt")._value.get() == before + 1
    (aside,) = folder.parent.glob("*.damaged-*")
    assert aside.name.startswith(f"{folder.name}.damaged-")
    # Who asks meanwhile is told to wait, and not that there is nothing.
    with pytest.raises(NotNow):
        store[row(1)[0]]
    store.apply_changelog_batch(
        cast(Any, [Event(Record(offset, *each, 0)) for offset, each in reader.values.items()]),
        to_key=lambda key: key,
        to_value=lambda value: value,
    )
    await store.on_recovery_completed(tps, set())
    assert store.recovering == {}
    assert store[row(7)[0]].images == 7
    assert store.persisted_offset(TP(CHANGELOG, 0)) == ROWS - 1
    close(store)


async def mended(store: PartitionStore) -> None:
    async with asyncio.timeout(30):
        assert await store.until_whole(0)


def read_all(store: PartitionStore, how: str) -> None:
    if how == "list":
        store.first_keys(0, None, ROWS)
    for number in range(ROWS):
        assert store[row(number)[0]].images == number


@pytest.mark.parametrize("how", ["read", "list"])
async def test_damage_that_shows_later_is_mended_while_the_other_partition_goes_on(
    make: Callable[[], PartitionStore], reader: FakeReader, how: str
) -> None:
    folder = fill(make(), reader)
    overwrite(tables(folder)[0])
    store = make()
    reader.failures = 2
    other = b"other\1"
    store._db_for_partition(0)
    store._db_for_partition(1).put(other, b'{"images":5,"bytes":1}')
    with pytest.raises(NotNow):
        read_all(store, how)
    assert store.recovering == {0: Reason.CORRUPT}
    # A late acknowledgement is of a change that is not there yet.
    store.set_persisted_offset(TP(CHANGELOG, 0), ROWS + 5)
    assert store[other].images == 5
    assert store.first_keys(1, None, 9) == [other]
    with pytest.raises(NotNow):
        store.first_keys(0, None, 9)
    await mended(store)
    assert [store[row(number)[0]].images for number in range(ROWS)] == list(range(ROWS))
    assert len(store.first_keys(0, None, 2 * ROWS)) == ROWS
    assert store.persisted_offset(TP(CHANGELOG, 0)) == ROWS - 1
    assert reader.failures == 0
    close(store)


async def test_a_rebalance_ends_a_mend_and_what_was_read_by_then_is_gone_on_from(
    make: Callable[[], PartitionStore], reader: FakeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwrite(tables(fill(make(), reader))[0])
    store = make()
    half = {offset: each for offset, each in reader.values.items() if offset < ROWS // 2}
    stuck = asyncio.Event()

    async def records(partition: TP, _start: int) -> AsyncGenerator[list[Any]]:
        yield [Record(offset, *each, partition.partition) for offset, each in half.items()]
        stuck.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(reader, "records", records)
    with pytest.raises(NotNow):
        store.first_keys(0, None, ROWS)
    await stuck.wait()
    tps = {TP(CHANGELOG, 0)}
    await store.on_rebalance(tps, set(), set(), store.app.consumer_generation_id)
    assert store.persisted_offset(TP(CHANGELOG, 0)) == ROWS // 2 - 1
    assert store.recovering == {0: Reason.CORRUPT}
    await store.on_recovery_completed(tps, set())
    assert store.recovering == {}
    close(store)


@pytest.mark.parametrize(
    ("extent", "cluster", "reason"),
    [
        (Extent(0, ROWS, 0), "one", None),
        (Extent(0, ROWS - 1, 0), "one", Reason.AHEAD),
        (Extent(0, ROWS, 0), "two", Reason.OTHER_CLUSTER),
        (Extent(0, ROWS + 5, ROWS + 1), "one", Reason.TOO_OLD),
    ],
)
async def test_a_copy_is_looked_at_before_it_is_gone_on_with(
    make: Callable[[], PartitionStore],
    reader: FakeReader,
    extent: Extent,
    cluster: str,
    reason: Reason | None,
) -> None:
    folder = fill(make(), reader)
    tps = {TP(CHANGELOG, 0)}
    store = make()
    await store.on_rebalance(tps, set(), tps, store.app.consumer_generation_id)
    assert store.recovering == {}
    close(store)
    reader.extent, reader.cluster = extent, cluster
    store = make()
    # Also where it stays: a machine may have slept for days.
    await store.on_rebalance(tps, set(), tps, store.app.consumer_generation_id)
    assert store.recovering == ({} if reason is None else {0: reason})
    assert store.persisted_offset(TP(CHANGELOG, 0)) == (ROWS - 1 if reason is None else None)
    # One that is too old has rows that were deleted since, and is to be kept by nobody.
    kept = reason not in (None, Reason.TOO_OLD)
    assert len(list(folder.parent.glob("*.damaged-*"))) == kept
    close(store)


async def test_a_row_that_is_none_is_as_if_it_were_not(
    make: Callable[[], PartitionStore], reader: FakeReader
) -> None:
    store = make()
    before = ROWS_UNREADABLE.labels("rows")._value.get()
    for number, value in enumerate((b"", b"null", b"\xff", b"[]", b'{"images":"many"}')):
        key = b"%d\0" % number
        store._db_for_partition(0).put(key, value)
        with pytest.raises(KeyError):
            store[key]
    assert ROWS_UNREADABLE.labels("rows")._value.get() == before + 5
    close(store)


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    folder = tmp_path / "rows-0.db"
    for _ in range(KEPT + 2):
        folder.mkdir()
        put_aside(folder)
    return folder


def test_few_damaged_folders_are_kept_and_not_for_ever(
    aside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(list(aside.parent.iterdir())) == KEPT
    remove_old(aside)
    assert len(list(aside.parent.iterdir())) == KEPT
    monkeypatch.setattr("tables.damage.KEPT_DAYS", -1)
    remove_old(aside)
    assert list(aside.parent.iterdir()) == []


def test_a_full_disk_and_a_lock_are_no_damage() -> None:
    for text in (
        "IO error: No space left on device: While appending to file",
        "IO error: While lock file: /x/LOCK: Resource temporarily unavailable",
        "IO error: While opening a file: Permission denied",
        "IO error: While pread offset 7 len 9: Input/output error",
    ):
        assert not is_damage(Exception(text))
        with pytest.raises(TableUnavailable), table_faults():
            raise Exception(text)
    with pytest.raises(TypeError), table_faults():  # a mistake of ours waits for nothing
        raise TypeError("Corruption")
    assert not is_damage(TypeError("Corruption"))
    with pytest.raises(NotNow), table_faults():
        raise NotNow(lambda: asyncio.sleep(0, True))


async def test_a_folder_that_may_not_be_read_ends_the_worker_with_a_sentence(
    make: Callable[[], PartitionStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()

    def refuse(*_args: object) -> None:
        raise Exception("IO error: While opening a file: /x/CURRENT: Permission denied")

    monkeypatch.setattr(store.rocksdb_options, "open", refuse)
    with pytest.raises(
        TableFolderUnusable, match=r"rows-0.*Permission denied.*give it to the user"
    ):
        store._db_for_partition(0)


async def test_a_change_is_in_a_copy_that_was_read_anew_without_it(
    make: Callable[[], PartitionStore], reader: FakeReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    table = cast(DurableTable, store.table)
    sent: list[tuple[bytes, bytes | None]] = []

    async def send(changes: list[Change]) -> list[BaseException]:
        sent.extend((each.key, each.value) for each in changes)
        return []

    monkeypatch.setattr(table, "_send", send)
    table._change(0, b"changed\0", b'{"images":7,"bytes":1}')
    table._change(0, b"gone\0", None)
    store.replace(0, Reason.CORRUPT).put(b"gone\0", b'{"images":1,"bytes":1}')
    store.note_mended(0)
    await table.settled()
    assert sent == [(b"changed\0", b'{"images":7,"bytes":1}'), (b"gone\0", None)]
    assert store[b"changed\0"].images == 7
    assert b"gone\0" not in store
    close(store)
