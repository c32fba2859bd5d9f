"""What Kafka tells of a table's changelog, and whether a copy on this disk can go on from it."""

import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from faust.types import TP

from deeplens_streams.broker.admin import admin_client
from deeplens_streams.broker.security import client_options
from deeplens_streams.config import Settings
from tables.damage import Reason

#: Kafka's own `delete.retention.ms`, the least that a changelog may ever have had, unless it is
#: set to less now.
KAFKAS_RETENTION_MS = 86_400_000
_ASK_MS = 20_000


@dataclass(frozen=True, slots=True)
class Extent:
    """One partition of a changelog, as Kafka has it.

    Attributes
    ----------
    start, end : its first offset, and the one behind its last.
    recent : the first offset of a record so young that no deletion as young can be gone; None where
        there is no such record.
    """

    start: int
    end: int
    recent: int | None


@dataclass(frozen=True, slots=True)
class Changelogs:
    """All that is asked of Kafka before copies are gone on with.

    Attributes
    ----------
    cluster : its ID; None where it tells none.
    """

    cluster: str | None
    extents: Mapping[TP, Extent]


def fault(
    stored: int, extent: Extent, *, made_of: str | None = None, cluster: str | None = None
) -> Reason | None:
    """Return why a copy cannot be gone on with, or None if it can.

    A changelog keeps the record of a deletion for a while, and forgets it then. A copy that has not
    read it by that time keeps the row, and whoever has the copy would bring it back. What the copy
    has not read is told by Kafka alone: records behind its offset may all be gone, so that nothing
    is there to be too old. So a copy is gone on with only if the first young record is not behind
    the first that it has not read: then all that it has not read is young.

    Parameters
    ----------
    stored : offset of the last change that the copy has.
    made_of : cluster whose changelog it was made from, where that is known.
    """
    if made_of is not None and cluster is not None and made_of != cluster:
        return Reason.OTHER_CLUSTER
    following = stored + 1
    if following > extent.end:
        return Reason.AHEAD
    if following == extent.end:
        return None
    if following < extent.start or extent.recent is None or extent.recent > following:
        return Reason.TOO_OLD
    return None


def safe_age_ms(retention_ms: int | None) -> int:
    """Return how old what a copy has not read may be.

    Half of what the changelog keeps deletions for, so that clocks may differ by the other half;
    and of Kafka's own day where it is set to more: that may be new, and deletions are gone already.
    """
    return min(retention_ms or KAFKAS_RETENTION_MS, KAFKAS_RETENTION_MS) // 2


class ChangelogReader:
    """Asks Kafka, and reads, beside Faust and without a consumer group."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def look(self, partitions: Collection[TP]) -> Changelogs:
        """Return how far each partition goes.

        Raises
        ------
        KafkaError, OSError, DeepLensError
            Kafka does not tell.
        """
        topics = {tp.topic for tp in partitions}
        async with admin_client(self._settings, timeout_ms=_ASK_MS) as admin:
            cluster = (await admin.describe_cluster()).get("cluster_id")
            kept = {topic: await _retention_ms(admin, topic) for topic in topics}
        async with self._consumer() as consumer:
            tps = [TopicPartition(*tp) for tp in partitions]
            # In this order: what is written meanwhile is young.
            starts = await consumer.beginning_offsets(tps)
            ends = await consumer.end_offsets(tps)
            now = int(time.time() * 1000)
            since = {tp: now - safe_age_ms(kept[tp.topic]) for tp in tps}
            found = await consumer.offsets_for_times(since)
        extents = {
            TP(*tp): Extent(starts[tp], ends[tp], None if found[tp] is None else found[tp].offset)
            for tp in tps
        }
        return Changelogs(cluster, extents)

    async def end(self, partition: TP) -> int:
        """Return the offset behind a partition's last record."""
        async with self._consumer() as consumer:
            tp = TopicPartition(*partition)
            ends: dict[TopicPartition, int] = await consumer.end_offsets([tp])
            return ends[tp]

    async def records(self, partition: TP, start: int) -> AsyncGenerator[list[Any]]:
        """Yield records from `start` on in bunches, up to the present end and an empty one."""
        tp = TopicPartition(*partition)
        async with self._consumer() as consumer:
            consumer.assign([tp])
            first = (await consumer.beginning_offsets([tp]))[tp]
            consumer.seek(tp, max(start, first))
            end = (await consumer.end_offsets([tp]))[tp]
            while await consumer.position(tp) < end:
                found = await consumer.getmany(tp, timeout_ms=1000)
                if found.get(tp):
                    yield found[tp]
            yield []

    @asynccontextmanager
    async def _consumer(self) -> AsyncGenerator[Any]:
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=_ASK_MS,
        )
        try:
            await consumer.start()
            yield consumer
        finally:
            await consumer.stop()


async def _retention_ms(admin: AIOKafkaAdminClient, topic: str) -> int | None:
    """Return for how long a topic keeps deletions; None where Kafka does not tell."""
    wanted = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"delete.retention.ms": None})
    with suppress(KafkaError, ValueError, IndexError):
        for response in await admin.describe_configs([wanted]):
            for _, _, _, _, entries in response.resources:
                for entry in entries:
                    if entry[0] == "delete.retention.ms":
                        return int(entry[1])
    return None
