"""A Faust table that can tell when its changelog has what was written.

Faust sends changes to the changelog behind the agent's back: neither an acknowledgement nor a
commit waits for them, and one that Kafka refuses is a line in the log. A row would then be right
on this machine's disk, and wrong for whoever recovers the table.
"""

import asyncio
from typing import Any

import faust
import structlog
from faust.types import TP, FutureMessage
from yarl import URL

from deeplens_streams.errors import BrokerUnavailable
from deeplens_streams.metrics import OFFSETS_NOT_NOTED
from deeplens_streams.transport import heard
from tables.rocksdb import PartitionStore

log = structlog.get_logger()


class DurableTable(faust.Table[bytes, Any]):
    """A table that keeps its changes at hand until its changelog has them.

    Attributes
    ----------
    _unsettled : by key, the last change that may not be in the changelog.
    _sent : changes on their way there.
    _cannot_note : whether the last change that arrived there could not be noted on this disk.
    """

    _unsettled: dict[bytes, dict[str, Any]]
    _sent: list[FutureMessage]
    _cannot_note: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Faust would hold back 1,000 changes of a standby's, and ask how far its copy is before it
        # writes them: who takes over would read them again.
        super().__init__(*args, **(kwargs | {"standby_buffer_size": 1}))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._unsettled, self._sent = {}, []
        self._cannot_note = False

    def send_changelog(
        self, partition: int | None, key: Any, value: Any, *args: Any, **kwargs: Any
    ) -> FutureMessage:
        sent = super().send_changelog(partition, key, value, *args, **kwargs)
        heard(sent)
        self._unsettled[key] = {"partition": sent.message.partition, "value": value, **kwargs}
        self._sent.append(sent)
        return sent

    def _on_changelog_sent(self, fut: FutureMessage) -> None:
        """Note on disk how far the changelog is that this table has.

        What cannot be noted, because the disk is full, is noted with the partition's next change.
        Whoever starts before that reads the changelog from the older offset, and has the same rows
        as before: nothing is lost by it but the time that it takes. Out of here an error would
        only be a line of asyncio's for each change.
        """
        try:
            super()._on_changelog_sent(fut)
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

    async def settled(self) -> None:
        """Return when the changelog has every change that was made so far.

        Where Kafka refused one, the next call sends the last change of each key again: an older
        one must not be the last that is said.

        Raises
        ------
        BrokerUnavailable
            Kafka refused one.
        """
        if not self._sent:
            await self._send_again()
        sent, self._sent = self._sent, []
        if not sent:
            return
        await asyncio.wait(sent)  # which, when cancelled, cancels none of them
        refusals = [each.exception() for each in sent]
        refused = next((each for each in refusals if each is not None), None)
        if refused is not None:
            raise BrokerUnavailable(
                f"Kafka refused a change of a table ({type(refused).__name__})."
            ) from refused
        if not self._sent:
            self._unsettled.clear()

    async def _send_again(self) -> None:
        store = self.data if isinstance(self.data, PartitionStore) else None
        if store is not None:
            for partition in {change["partition"] for change in self._unsettled.values()}:
                await store.until_whole(partition)
            # A copy that was replaced meanwhile was read from a changelog without these.
            for key, change in self._unsettled.items():
                if self._is_ours(change):
                    store.put_again(change["partition"], key, change["value"])
        changes, self._unsettled = self._unsettled, {}
        for key, change in changes.items():
            # Whoever has the partition by now does the work anew, and has the last word.
            if self._is_ours(change):
                self.send_changelog(key=key, **change)

    def _is_ours(self, change: dict[str, Any]) -> bool:
        tp = TP(self.changelog_topic_name, change["partition"])
        return bool(self.app.assignor.is_active(tp))
