"""RocksDB under a table: a copy that is not whole is put aside and read from Kafka again.

Faust's own store goes on with whatever it finds: it ends the worker where a folder is damaged, asks
every partition for a row, so that one that is damaged is in the way of all, and ends a listing at
the first damaged block without a word. What is here goes by the partition.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import structlog
from faust.streams import current_event
from faust.types import TP, EventT

from deeplens_streams.metrics import ROWS_UNREADABLE
from tables.damage import is_damage
from tables.partitions import Partitions

log = structlog.get_logger()


class PartitionStore(Partitions):
    """A table's rows, each in the database of its partition."""

    def partition_of(self, key: bytes) -> int:
        """Return the partition of the event that is being handled, else that of the key."""
        event = current_event()
        if event is not None:
            return int(event.message.partition)
        found = self.app.producer.key_partition(self.tp(0).topic, key)
        return int(found.partition)

    def _get(self, key: bytes) -> bytes | None:
        partition = self.partition_of(key)
        if current_event() is None and partition not in self._dbs:
            return None
        with self.open_partition(partition) as database:
            value: bytes | None = database.get(key)
            return value

    def _set(self, key: bytes, value: bytes | None) -> None:
        self.put(self.partition_of(key), key, value)

    def _del(self, key: bytes) -> None:
        self.put(self.partition_of(key), key, None)

    def encode_row(self, row: Any) -> bytes:
        """Return a row as it is on disk and in Kafka."""
        encoded = self._encode_value(row)
        assert encoded is not None, "no row is written as nothing"
        return encoded

    def put(self, partition: int, key: bytes, value: bytes | None) -> Any:
        """Write a row, or remove it where there is no value; return the database that has it."""
        with self.open_partition(partition) as database:
            if value is None:
                database.delete(key)
            else:
                database.put(key, value)
            return database

    def is_open(self, partition: int, database: Any) -> bool:
        """Tell whether a partition's database is still the one that it was."""
        return self._dbs.get(partition) is database

    def _contains(self, key: bytes) -> bool:
        return self._get(key) is not None

    def _visible_items(self, db: Any) -> Iterator[tuple[bytes, bytes]]:
        """Yield what a database has; Faust's own iteration ends at a damaged block in silence."""
        rows = db.iter()
        rows.seek_to_first()
        while rows.valid():
            if rows.key() != self.offset_key:
                yield rows.key(), rows.value()
            rows.next()
        rows.status()

    def _visible_keys(self, db: Any) -> Iterator[bytes]:
        for key, _ in self._visible_items(db):
            yield key

    def first_keys(self, partition: int, after: str | None, count: int) -> list[bytes]:
        """Return the first keys of a partition behind `after`, in order.

        Raises
        ------
        NotNow
            The partition is read from Kafka again, from now on at the latest.
        """
        keys: list[bytes] = []
        with self.open_partition(partition) as database:
            rows = database.iter()
            rows.seek(b"" if after is None else after.encode() + b"\0")
            while rows.valid() and len(keys) < count:
                if rows.key() != self.offset_key:
                    keys.append(rows.key())
                rows.next()
            rows.status()
        return keys

    def __getitem__(self, key: Any) -> Any:
        value = self._get(self._encode_key(key))
        if value is None:
            raise KeyError(key)
        try:
            return self._decode_value(value)
        except Exception as error:
            # It waits for nothing: the next event writes the row anew, and an audit finds it.
            ROWS_UNREADABLE.labels(self.table_name).inc()
            shown = str(key)[:80]
            log.exception("a row cannot be read; going on as if there were none", key=shown)
            raise KeyError(key) from error

    # Offsets and changelogs -------------------------------------------------------------

    def persisted_offset(self, tp: TP) -> int | None:
        try:
            found = self._db_for_partition(tp.partition).get(self.offset_key)
            return None if found is None else int(found)
        except Exception as error:
            if not is_damage(error) and not isinstance(error, ValueError):
                raise
            if tp.partition not in self.recovering:
                self._start_to_mend(tp.partition, error)
            return None

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Note how far a partition's copy is.

        An acknowledgement that comes while a partition is read again is of a change that this
        copy may not have yet.
        """
        if tp.partition not in self.recovering:
            with self.open_partition(tp.partition) as database:
                database.put(self.offset_key, str(offset).encode())

    def apply_changelog_batch(
        self,
        batch: Iterable[EventT[Any]],
        to_key: Callable[[Any], Any],
        to_value: Callable[[Any], Any],
    ) -> None:
        """Write changes that Faust has read, and with them how far they go."""
        by_partition: dict[int, list[Any]] = {}
        for event in batch:
            by_partition.setdefault(event.message.partition, []).append(event.message)
        for partition, messages in by_partition.items():
            if partition in self._mends:
                continue  # who mends it reads them, too
            try:
                self.write(self._db_for_partition(partition), messages)
            except Exception as error:
                if not is_damage(error):
                    raise
                self._start_to_mend(partition, error)
