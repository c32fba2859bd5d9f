"""Reading one partition of a table from Kafka again, while the others go on."""

import asyncio
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

from deeplens_streams.errors import BrokerUnavailable
from tables.damage import TableFolderUnusable, is_of_rocksdb

if TYPE_CHECKING:
    from tables.partitions import Partitions

log = structlog.get_logger()

_RETRY_S = 1.0


async def mend(store: "Partitions", partition: int) -> None:
    """Read a partition's changelog into its copy, up to where Faust is and to its end.

    Kafka that is away and a disk that is full are waited for. A rebalance cancels this, and Faust
    goes on from the offset that is noted by then.
    """
    tp = store.tp(partition)
    while True:
        try:
            # What this worker has sent is to be read, too.
            await store.app.producer.flush()
            if await _catch_up(store, tp):
                return store.note_mended(partition)
        except (KafkaError, OSError, BrokerUnavailable) as away:
            log.info("Kafka does not give a table's changelog", reason=repr(away)[:300])
        except Exception as full:
            if not (is_of_rocksdb(full) or isinstance(full, TableFolderUnusable)):
                raise
            log.warning("a table's partition cannot be written", reason=str(full)[:300])
        await asyncio.sleep(_RETRY_S)


async def _catch_up(store: "Partitions", tp: TP) -> bool:
    """Read on, and tell whether the copy has all that there is."""
    database = cast(Any, store)._db_for_partition(tp.partition)  # noqa: SLF001
    noted = database.get(store.offset_key)
    last = -1 if noted is None else int(noted)
    async for messages in store.changelog.records(tp, last + 1):
        last = max(last, store.write(database, messages))
        await asyncio.sleep(0)
    recovery = cast(Any, store.app.tables).recovery
    handed_on = (recovery.active_offsets.get(tp), recovery.standby_offsets.get(tp))
    return all(each is None or last >= each for each in handed_on)
