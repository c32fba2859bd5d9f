"""Any table from any worker: what this one holds, and what the others say that they do."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import faust
import structlog
from aiokafka.errors import KafkaError
from faust.types import TP
from yarl import URL

from deeplens_streams.errors import RowMoving
from deeplens_streams.interactive_queries.peers import Peers
from deeplens_streams.interactive_queries.recovered_partitions import RecoveredPartitions
from deeplens_streams.interactive_queries.shard import (
    Entry,
    Partition,
    TablePage,
    TableShard,
    merged,
)
from deeplens_streams.interactive_queries.sources import TableInfo
from models.records import WireRecord
from models.tables import PartitionState
from models.tenants import Tenant
from tables.lanes import NotNow

log = structlog.get_logger()

#: Seconds that another worker has for its share, and that Kafka has for where topics end.
_DEADLINE_S = 2.0
#: Seconds for which what Kafka said of them is good enough.
_ENDS_S = 5.0
#: What a partition takes: files, and what is still in memory.
_SIZES = ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables")


class FaustTables:
    """`TableSource` over the Faust tables of the api role."""

    def __init__(self, app: faust.App, peers: Peers, recovered: RecoveredPartitions) -> None:
        self._app = app
        self._recovered = recovered
        self._peers = peers
        #: When Kafka was asked last for the ends of which partitions, and what it said.
        self._last_ends: tuple[float, frozenset[TP], Mapping[TP, int]] = (0.0, frozenset(), {})

    def known(self) -> list[TableInfo]:
        return [
            TableInfo(
                name=name,
                purpose=table.help or "",
                partitions=table.partitions,
                changelog=table.changelog_topic.get_topic_name(),
                value_type=getattr(table.value_type, "__name__", str(table.value_type)),
            )
            for name, table in sorted(self._tables().items())
        ]

    def _tables(self) -> dict[str, Any]:
        return dict(self._app.tables)

    async def page(self, name: str, *, limit: int, after: str | None) -> TablePage:
        """Return rows of every worker in key order, and what each has of the table."""
        owners = self._owners(name)
        workers = {URL(url) for url in owners.values() if url is not None}
        answers = await asyncio.gather(
            *(self._share_of(each, name, limit, after) for each in sorted(workers))
        )
        return merged((each for each in answers if each is not None), owners, limit=limit)

    async def row(self, name: str, key: str) -> Entry | None:
        """Return the row from the worker that owns its partition; see `TableSource`."""
        try:
            owner = self._app.router.key_store(name, key.encode())
        except KeyError:
            raise RowMoving from None
        if self._peers.is_here(owner):
            return self.local_row(name, key)
        try:
            async with asyncio.timeout(_DEADLINE_S):
                found = await self._peers.get(owner / "internal" / "tables" / name / "rows" / key)
            return None if found is None else Entry(found["key"], found["value"])
        except (TimeoutError, TypeError, KeyError):
            raise RowMoving from None

    def local_row(self, name: str, key: str) -> Entry | None:
        table = self._tables()[name]
        if not self._recovered.has_row(table.changelog_topic.get_topic_name(), key):
            raise RowMoving
        try:
            value = table.get(key.encode())
        except NotNow:
            raise RowMoving from None
        return None if value is None else Entry(key, _wire(value))

    async def local_share(self, name: str, *, limit: int, after: str | None) -> TableShard:
        """Return what this worker holds; rows of its own partitions alone, not of copies."""
        table = self._tables()[name]
        databases: Mapping[int, Any] = table.data._dbs  # noqa: SLF001 - Faust counts only
        topic = table.changelog_topic.get_topic_name()
        ends = await self._ends([TP(topic, number) for number in databases])
        # From here on nothing is waited for: a partition that goes takes its rows along.
        owned = {tp.partition for tp in self._app.assignor.assigned_actives() if tp.topic == topic}
        own = [number for number in databases if number in owned]
        entries = list(_entries(table, own, after, limit + 1))
        # Behind them: a partition that turned out to be damaged is said to be.
        partitions = [
            self._partition(table, TP(topic, number), database, number in owned, ends)
            for number, database in sorted(databases.items())
        ]
        return TableShard(partitions, entries)

    def _partition(
        self, table: Any, tp: TP, database: Any, is_owned: bool, ends: Mapping[TP, int]
    ) -> Partition:
        state = PartitionState.STANDBY
        if is_owned:
            is_whole = tp in self._recovered
            state = PartitionState.READY if is_whole else PartitionState.RECOVERING
        read = table.data.persisted_offset(tp)
        end = ends.get(tp)
        return Partition(
            partition=tp.partition,
            worker=str(self._peers.here),
            state=state.value,
            # The offset is a row to RocksDB.
            rows=max(0, _number(database, "rocksdb.estimate-num-keys") - (read is not None)),
            size_bytes=sum(_number(database, name) for name in _SIZES),
            changelog_lag=None if end is None else max(0, end - (0 if read is None else read + 1)),
        )

    async def _ends(self, partitions: Sequence[TP]) -> Mapping[TP, int]:
        """Return where changelogs ended of late; empty while Kafka cannot say.

        The question waits behind a fetch that waits for messages, for a second and more: too long
        for each page of who reads a whole table.
        """
        asked, now = frozenset(partitions), time.monotonic()
        at, about, ends = self._last_ends
        if asked == about and now - at < _ENDS_S:
            return ends
        try:
            async with asyncio.timeout(_DEADLINE_S):
                ends = await self._app.consumer.highwaters(*partitions) if partitions else {}
        except (TimeoutError, KafkaError, OSError):
            ends = {}
        self._last_ends = time.monotonic(), asked, ends
        return ends

    def _owners(self, name: str) -> dict[int, str | None]:
        table = self._tables()[name]
        owners: dict[int, str | None] = dict.fromkeys(range(table.partitions))
        topic = table.changelog_topic.get_topic_name()
        for url, topics in self._app.router.tables_metadata().items():
            owners |= dict.fromkeys(topics.get(topic, ()), url)
        return owners

    async def _share_of(
        self, worker: URL, name: str, limit: int, after: str | None
    ) -> TableShard | None:
        """Return another worker's share, or None where it does not answer."""
        if self._peers.is_here(worker):
            return await self.local_share(name, limit=limit, after=after)
        params = {"limit": str(limit), **({} if after is None else {"after": after})}
        try:
            async with asyncio.timeout(2 * _DEADLINE_S):
                answer = await self._peers.get(worker / "internal" / "tables" / name, params)
            return TableShard.from_wire(answer["share"])
        except (TimeoutError, RowMoving, TypeError, ValueError, KeyError) as error:
            reason = repr(error.__cause__ or error)
            log.info("a worker does not give its share", worker=str(worker), reason=reason)
            return None


def _number(database: Any, name: str) -> int:
    found: int | None = database.property_int_value(name)
    return found or 0


def _wire(value: Any) -> Any:
    """Return a row as it is shown: hashes of keys stay where they are."""
    if not isinstance(value, WireRecord):
        return value
    row = value.to_wire()
    if isinstance(value, Tenant):
        # Nor is there anybody here who knows what a newer version has beside them.
        row["keys"] = [key.known_fields() | {"sha256": f"{key.sha256[:8]}…"} for key in value.keys]
    return row


def _entries(
    table: Any, partitions: Iterable[int], after: str | None, count: int
) -> Iterator[Entry]:
    """Yield the first rows behind `after` of some partitions together, in order.

    Those of a partition that is read from Kafka again are left out, and so are rows that are none.
    """
    keys: list[bytes] = []
    for partition in partitions:
        with suppress(NotNow):
            keys += table.data.first_keys(partition, after, count)
    for key in sorted(keys)[:count]:
        with suppress(NotNow):
            if (value := table.get(key)) is not None:
                yield Entry(key.decode("utf-8", "replace"), _wire(value))
