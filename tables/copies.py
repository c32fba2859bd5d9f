"""Which of a table's copies on this disk cannot be gone on with."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

from deeplens_streams.errors import BrokerUnavailable
from tables.changelog import Changelogs, fault
from tables.damage import Reason

if TYPE_CHECKING:
    from tables.partitions import Partitions

log = structlog.get_logger()

#: In a partition's folder: the ID of the cluster whose changelog it was made from.
_CLUSTER = "CHANGELOG-OF"
_RETRY_S = 1.0
#: Looks at a changelog before it is believed that it lost something: where a broker has just taken
#: over, it may take a moment until it tells all that it has.
_LOOKS = 3


async def unfit_copies(store: "Partitions", partitions: Collection[int]) -> dict[int, Reason]:
    """Look at each partition's copy, and return why some cannot be gone on with.

    Notes beside each which cluster it is of from now on.
    """
    copies = {
        number: stored
        for number in sorted(partitions)
        if (stored := store.persisted_offset(store.tp(number))) is not None
    }
    found, unfit = Changelogs(None, {}), dict[int, Reason]()
    for look in range(_LOOKS):
        found = await _ask(store, {store.tp(number) for number in copies})
        unfit = {}
        for number, stored in copies.items():
            extent = found.extents.get(store.tp(number))
            made_of = _made_of(store.partition_path(number))
            reason = extent and fault(stored, extent, made_of=made_of, cluster=found.cluster)
            if reason:
                unfit[number] = reason
        if Reason.AHEAD not in unfit.values():
            break
        if look + 1 < _LOOKS:
            await asyncio.sleep(_RETRY_S)
    if found.cluster is not None:
        for number in set(copies) - set(unfit):
            with suppress(OSError):
                (store.partition_path(number) / _CLUSTER).write_text(found.cluster)
    return unfit


async def _ask(store: "Partitions", partitions: set[TP]) -> Changelogs:
    """Ask Kafka for as long as it takes: without it, nothing can be recovered anyway."""
    while partitions and not store.app.should_stop:
        try:
            return await store.changelog.look(partitions)
        except (BrokerUnavailable, KafkaError, OSError) as error:
            log.info("Kafka does not tell of a table's changelog", reason=repr(error)[:300])
        await asyncio.sleep(_RETRY_S)
    return Changelogs(None, {})


def _made_of(folder: Path) -> str | None:
    try:
        return (folder / _CLUSTER).read_text().strip() or None
    except (OSError, ValueError):
        return None
