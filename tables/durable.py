"""A Faust table whose changelog has what was written before that counts as done.

Faust sends changes to the changelog behind the agent's back: neither an acknowledgement nor a
commit waits for them, and one that Kafka refuses is a line in the log. A row would then be right
on this machine's disk, and wrong for whoever recovers the table. Here changes are kept at hand,
and all of them are sent when the agent asks for that: of a row that changed twice until then, the
last change alone.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import faust
import structlog
from aiokafka.errors import KafkaError
from faust.exceptions import NotReady, ProducerSendError
from faust.types import TP, RecordMetadata
from yarl import URL

from deeplens_streams.broker.errors import broker_faults
from deeplens_streams.metrics import OFFSETS_NOT_NOTED
from tables.rocksdb import PartitionStore

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Change:
    """What the changelog is to be told of one row.

    Attributes
    ----------
    key, value : as they are on disk and in Kafka; no value where the row is gone.
    written_to : the partition's database that has the change.
    """

    partition: int
    key: bytes
    value: bytes | None
    written_to: Any


class DurableTable(faust.Table[bytes, Any]):
    """A table that keeps its changes at hand until its changelog has them.

    Attributes
    ----------
    _unsettled : by key, the last change that may not be in the changelog.
    _settling : held while changes are on their way there.
    _cannot_note : whether how far the changelog is could not be noted on this disk the last time.
    """

    _unsettled: dict[bytes, Change]
    _settling: asyncio.Lock
    _cannot_note: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Faust would hold back 1,000 changes of a standby's, and ask how far its copy is before it
        # writes them: who takes over would read them again.
        super().__init__(*args, **(kwargs | {"standby_buffer_size": 1}))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._unsettled, self._settling = {}, asyncio.Lock()
        self._cannot_note = False

    @property
    def store(self) -> PartitionStore:
        """The rows on this disk."""
        return cast(PartitionStore, self.data)

    def __setitem__(self, key: bytes, row: Any) -> None:
        self._change(self.store.partition_of(key), key, self.store.encode_row(row))

    def __delitem__(self, key: bytes) -> None:
        """Remove a row, also where it is gone from here: its changelog may not know."""
        self._change(self.store.partition_of(key), key, None)

    def _change(self, partition: int, key: bytes, value: bytes | None) -> None:
        database = self.store.put(partition, key, value)
        self._unsettled[key] = Change(partition, key, value, database)

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Forget changes of what was revoked: its next owner does that work anew.

        Said when the partition comes back, they would undo what was changed elsewhere meanwhile.
        """
        for change in [*self._unsettled.values()]:
            if self.store.tp(change.partition) in revoked:
                del self._unsettled[change.key]
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    def _new_store_by_url(self, url: Any) -> Any:
        if URL(str(url)).scheme != "rocksdb":
            return super()._new_store_by_url(url)
        return PartitionStore(
            url,
            self.app,
            self,
            table_name=self.name,
            key_type=self.key_type,
            key_serializer=self.key_serializer,
            value_serializer=self.value_serializer,
            value_type=self.value_type,
            loop=self.loop,
            options=self.options,
        )

    # The changelog -----------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether the changelog has every change that was made so far."""
        return not self._unsettled

    async def settled(self) -> None:
        """Return when the changelog has every change that was made so far.

        What Kafka refused stays at hand: the next call sends the last change of each key.

        Raises
        ------
        BrokerUnavailable, BrokerRefused
            Kafka did not take one.
        """
        async with self._settling:
            for change in [*self._unsettled.values()]:
                await self._have_here(change)
            self._drop_others()
            refusals = await self._send([*self._unsettled.values()])
        if refusals:
            with broker_faults("a change of a table"):
                raise refusals[0]

    async def _have_here(self, change: Change) -> None:
        """Write a change again if the copy that had it was replaced by what the changelog has."""
        if self.store.is_open(change.partition, change.written_to):
            return
        is_ours = await self.store.until_whole(change.partition)
        if is_ours and self._unsettled.get(change.key) is change:
            change.written_to = self.store.put(change.partition, change.key, change.value)

    def _drop_others(self) -> None:
        """Forget changes of partitions that another worker has by now.

        It does the work anew, and has the last word.
        """
        is_active = self.app.assignor.is_active
        for change in [*self._unsettled.values()]:
            if not is_active(self.store.tp(change.partition)):
                del self._unsettled[change.key]

    async def _send(self, changes: Iterable[Change]) -> list[BaseException]:
        """Send changes together; return why some were refused."""
        producer = await self.app.maybe_start_producer()
        topic = self.changelog_topic.get_topic_name()
        sent: dict[Change, asyncio.Future[RecordMetadata]] = {}
        refusals: dict[Change, BaseException] = {}
        for change in changes:
            try:
                future = await producer.send(
                    topic, change.key, change.value, change.partition, None, None
                )
            except (KafkaError, ProducerSendError, NotReady, OSError) as error:
                refusals[change] = error
            else:
                sent[change] = cast("asyncio.Future[RecordMetadata]", future)
        if sent:
            await asyncio.wait(sent.values())  # cancelled, it cancels none
        refusals |= {each: fault for each, done in sent.items() if (fault := done.exception())}
        self._arrived({each: done.result() for each, done in sent.items() if each not in refusals})
        return [*refusals.values()]

    def _arrived(self, changes: dict[Change, RecordMetadata]) -> None:
        """Forget changes that the changelog has, and note how far it is."""
        reached: dict[int, int] = {}
        for change, place in changes.items():
            if self._unsettled.get(change.key) is change:  # else there is a later one
                del self._unsettled[change.key]
            if self.store.is_open(change.partition, change.written_to):
                reached[change.partition] = max(reached.get(change.partition, 0), place.offset)
        for partition, offset in reached.items():
            self._note(partition, offset)

    def _note(self, partition: int, offset: int) -> None:
        """Note on disk how far the changelog is that this table has.

        What cannot be noted, because the disk is full, is noted with the partition's next change.
        Whoever starts before that reads the changelog from the older offset, and has the same rows
        as before: nothing is lost by it but the time that it takes.
        """
        try:
            self.store.set_persisted_offset(self.store.tp(partition), offset)
        except Exception as error:  # RocksDB's are of no class of their own
            OFFSETS_NOT_NOTED.labels(self.name).inc()
            if not self._cannot_note:
                self._cannot_note = True
                log.warning(
                    "a table cannot note how far it is; it does with its next change",
                    table=self.name,
                    reason=str(error)[:300],
                )
        else:
            self._cannot_note = False
