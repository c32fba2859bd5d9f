"""A table's partitions on this disk: opened, put aside where they are not whole, and mended."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import structlog
from faust.stores.rocksdb import Store
from faust.types import TP
from rocksdict import WriteBatch

from deeplens_streams.metrics import PARTITIONS_RECOVERING, PARTITIONS_REPLACED
from tables import damage
from tables.changelog import ChangelogReader
from tables.copies import unfit_copies
from tables.damage import Reason, TableFolderUnusable, is_damage, is_of_rocksdb
from tables.lanes import NotNow
from tables.mending import mend
from tables.whole_files import has_unknown_tables, tables_in

log = structlog.get_logger()


class Partitions(Store):
    """Of one table: a database for each partition.

    Attributes
    ----------
    recovering : partitions that are read from Kafka again, and why. What they have so far is the
        changelog up to the offset that they have noted, and nobody is to see it.
    """

    _dbs: dict[int, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.recovering: dict[int, Reason] = {}
        self._mends: dict[int, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    # What is whole ----------------------------------------------------------------------

    @property
    def changelog(self) -> ChangelogReader:
        return ChangelogReader(cast(Any, self.app).settings)

    async def until_whole(self, partition: int) -> bool:
        """Return when a partition can be read again; whether it is still this worker's."""
        while partition in self.recovering:
            self._changed.clear()
            await self._changed.wait()
        return bool(self.app.assignor.is_active(self.tp(partition)))

    def tp(self, partition: int) -> TP:
        """Return a partition of the table's changelog."""
        return TP(self.table.changelog_topic.get_topic_name(), partition)

    def _note_whole(self, partition: int) -> None:
        reason = self.recovering.pop(partition, None)
        if reason is not None:
            log.info("a partition of a table is whole again", **self._about(partition))
        self._tell()

    def _tell(self) -> None:
        PARTITIONS_RECOVERING.labels(self.table_name).set(len(self.recovering))
        self._changed.set()

    def _about(self, partition: int) -> dict[str, Any]:
        return {"table": self.table_name, "partition": partition}

    # Opening ----------------------------------------------------------------------------

    def _open_for_partition(self, partition: int) -> Any:
        """Open a partition's database; one that is damaged is put aside, for an empty one."""
        path = self.partition_path(partition)
        damage.remove_old(path)
        before = tables_in(path)
        try:
            database = self.rocksdb_options.open(path)
        except Exception as error:
            if not is_of_rocksdb(error):
                raise
            if not is_damage(error):
                raise damage.unusable(path, error) from error
            return self._open_empty(partition, Reason.CORRUPT, str(error))
        if has_unknown_tables(before, database):
            database.close()
            said = "its files do not belong together, as after a kill while it wrote"
            return self._open_empty(partition, Reason.CORRUPT, said)
        return database

    def _open_empty(self, partition: int, reason: Reason, said: str = "") -> Any:
        path = self.partition_path(partition)
        try:
            aside = None
            if reason is Reason.TOO_OLD:
                # It has rows that were deleted since, and is to be kept by nobody.
                damage.remove(path)
            else:
                aside = damage.put_aside(path)
            database = self.rocksdb_options.open(path)
        except Exception as error:
            raise damage.unusable(path, error) from error
        # Faust remembers how far the copy was, and would go on from there.
        cast(Any, self.app.tables).recovery.revoke(self.tp(partition))
        self.recovering[partition] = reason
        PARTITIONS_REPLACED.labels(self.table_name, reason.value).inc()
        self._tell()
        log.warning(
            "a partition of a table is read from Kafka again",
            **self._about(partition),
            reason=f"{reason.value}: {said.partition(chr(10))[0][:300]}" if said else reason.value,
            kept=None if aside is None else str(aside),
        )
        return database

    def replace(self, partition: int, reason: Reason, said: str = "") -> Any:
        """Put a partition's copy aside for an empty one, and return that."""
        old = self._dbs.pop(partition, None)
        if old is not None:
            old.close()
        database = self._dbs[partition] = self._open_empty(partition, reason, said)
        return database

    # Rebalances -------------------------------------------------------------------------

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Open what came, and look whether each copy can be gone on with."""
        # Faust's recovery goes on from where these are.
        for task in self._mends.values():
            task.cancel()
        await asyncio.gather(*self._mends.values(), return_exceptions=True)
        self._mends.clear()
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)
        topic = self.tp(0).topic
        mine = {tp.partition for tp in assigned if tp.topic == topic}
        for gone in set(self.recovering) - mine:
            del self.recovering[gone]
        self._tell()
        for number, reason in (await unfit_copies(self, mine)).items():
            self.replace(number, reason, f"it ends at {self.persisted_offset(self.tp(number))}")

    def revoke_partitions(self, table: Any, tps: set[TP]) -> None:
        """Close what this worker has no more.

        Faust forgets a database, and trusts that nothing else refers to it: an unsettled change
        does, and the folder would stay locked when the partition comes back.
        """
        for tp in tps:
            if tp.topic in table.changelog_topic.topics:
                database = self._dbs.pop(tp.partition, None)
                if database is not None:
                    database.close()

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        await super().on_recovery_completed(active_tps, standby_tps)
        for partition in set(self.recovering) - set(self._mends):
            self._note_whole(partition)

    async def stop(self) -> None:
        for task in self._mends.values():
            task.cancel()
        await super().stop()

    # Mending ----------------------------------------------------------------------------

    @contextmanager
    def open_partition(self, partition: int) -> Iterator[Any]:
        """Hand out a partition's database; where that turns out to be damaged, mend it.

        Raises
        ------
        NotNow
            It is read from Kafka again.
        """
        if partition in self.recovering:
            raise self._not_now(partition)
        database = self._db_for_partition(partition)
        if partition in self.recovering:  # it was damaged when it was opened
            self._start_to_mend(partition)
            raise self._not_now(partition)
        try:
            yield database
        except Exception as error:
            if not is_damage(error):
                raise
            self._start_to_mend(partition, error)
            raise self._not_now(partition) from error

    def _not_now(self, partition: int) -> NotNow:
        return NotNow(lambda: self.until_whole(partition))

    def _start_to_mend(self, partition: int, error: Exception | None = None) -> None:
        """Have a partition read from Kafka again.

        Parameters
        ----------
        error : what RocksDB said; None where an empty copy has taken its place already.
        """
        if partition in self._mends:
            return
        if error is not None:
            try:
                self.replace(partition, Reason.CORRUPT, str(error))
            except TableFolderUnusable as full:
                log.warning(full.message)
            self.recovering.setdefault(partition, Reason.CORRUPT)
            self._tell()
        task = asyncio.get_running_loop().create_task(mend(self, partition))
        self._mends[partition] = task
        task.add_done_callback(lambda done: self._ended(partition, done))

    def note_mended(self, partition: int) -> None:
        """Go on with a partition: it has all that was read, by whomever, until this moment."""
        self._mends.pop(partition, None)
        self._note_whole(partition)

    def _ended(self, partition: int, task: "asyncio.Task[None]") -> None:
        if self._mends.get(partition) is task:
            del self._mends[partition]
            error = None if task.cancelled() else task.exception()
            if error is not None:  # a mistake of ours: without this copy nothing goes on here
                self.add_future(cast(Any, self.app).crash(error))

    def write(self, database: Any, messages: Iterable[Any]) -> int:
        """Write records of a changelog and the last one's offset at once; return that."""
        noted = database.get(self.offset_key)
        last = -1 if noted is None else int(noted)
        changes = WriteBatch(raw_mode=True)
        for each in messages:
            if each.offset <= last:
                continue
            if each.value is None:
                changes.delete(each.key)
            else:
                changes.put(each.key, each.value)
            last = each.offset
        if last >= 0:
            changes.put(self.offset_key, str(last).encode())
            database.write(changes)
        return last
