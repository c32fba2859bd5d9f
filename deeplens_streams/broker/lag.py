"""Consumer lag of every stage, wherever its workers are: asked of Kafka itself."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from mode import Service

from deeplens_streams.broker.admin import admin_client
from deeplens_streams.broker.described import partition_counts
from deeplens_streams.broker.groupless_consumer import keep_reading
from deeplens_streams.broker.offsets import RemovedUnread, positions
from deeplens_streams.broker.topics import Topic
from deeplens_streams.broker.topology import READERS, STAGES, STEP_STAGES, group_id
from deeplens_streams.broker.watermark import Watermark
from deeplens_streams.config import Role, Settings
from deeplens_streams.metrics import CONSUMER_LAG, REMOVED_UNREAD

log = structlog.get_logger()

#: Where pictures wait on their way, each in one of them; behind the last one they are indexed.
_PIPELINE = tuple(stage.topic for stage in STEP_STAGES.values())
#: What becomes of a picture, and what its tenant has, depends on these alone.
_OF_PICTURES = tuple(stage.topic for stage in STAGES if stage.is_decisive)
#: The drain rate is measured over this long.
_WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of the readings.

    Attributes
    ----------
    every_s : between two of them.
    fresh_s : one that is older says nothing: Kafka has not answered since.
    """

    every_s: float = 2.0
    fresh_s: float = 30.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """Offsets of one moment: where each partition ends, and up to where it was read."""

    at: float
    lag: dict[tuple[Topic, int], int]
    #: Of all vectors that were stored.
    indexed: int


class LagReader(Service):
    """Reads the lag of every stage every two seconds."""

    def __init__(self, settings: Settings, timings: Timings = Timings(), **kwargs: Any) -> None:
        self._settings, self._timings = settings, timings
        self._readings: deque[_Reading] = deque()
        self._watermark = Watermark()
        self._removed = RemovedUnread()
        super().__init__(**kwargs)

    @property
    def waiting(self) -> int | None:
        """Pictures on their way at the last reading; None while that is not known."""
        last = self._last()
        if last is None:
            return None
        return sum(count for (topic, _), count in last.lag.items() if topic in _PIPELINE)

    @property
    def drain_rate(self) -> float | None:
        """Pictures a second that were indexed of late; None while that is not known."""
        first, last = next(iter(self._readings), None), self._last()
        if first is None or last is None or first is last:
            return None
        return max(0, last.indexed - first.indexed) / (last.at - first.at)

    @property
    def read_up_to(self) -> datetime | None:
        """The moment before which nothing that is under way for a picture has moved last.

        None while that is not known. An old one stays true.
        """
        return self._watermark.at

    def _last(self) -> _Reading | None:
        """Return the last reading unless it is old."""
        if not self._readings or time.monotonic() - self._readings[-1].at > self._timings.fresh_s:
            return None
        return self._readings[-1]

    @Service.task
    async def _read(self) -> None:
        # Whatever fails: the worker goes on without these figures.
        await keep_reading(
            self,
            self._settings,
            self._read_on,
            lambda error: log.debug("the lag cannot be read", reason=repr(error)),
            faults=(Exception,),
            retry_s=self._timings.every_s,
        )

    async def _read_on(self, consumer: AIOKafkaConsumer) -> None:
        async with admin_client(self._settings) as admin:
            while not self.should_stop:
                self._note(await self._reading(consumer, admin))
                await self.sleep(self._timings.every_s)

    @Service.task
    async def _forget(self) -> None:
        """Take the figures out of ``/metrics`` when they say nothing any more."""
        while not self.should_stop:
            if self._last() is None:
                CONSUMER_LAG.clear()
            await self.sleep(self._timings.every_s)

    async def _reading(self, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient) -> _Reading:
        namespace = self._settings.namespace
        counts = await partition_counts(admin, READERS, namespace)
        partitions = {
            TopicPartition(topic.name(namespace), number): (topic, number)
            for topic, count in counts.items()
            for number in range(count)
        }
        committed: dict[TopicPartition, int] = {}
        for role in Role:
            offsets = await admin.list_consumer_group_offsets(group_id(role, namespace))
            committed |= {tp: each.offset for tp, each in offsets.items() if each.offset >= 0}
        beginnings = await consumer.beginning_offsets(list(partitions))
        at = datetime.now(UTC)
        ends = await consumer.end_offsets(list(partitions))
        self._tell_removed(partitions, committed, beginnings)
        read = positions(committed, beginnings, ends)
        of_pictures = [tp for tp, (topic, _) in partitions.items() if topic in _OF_PICTURES]
        self._watermark.note(at, ends={tp: ends[tp] for tp in of_pictures}, read=read)
        lag = {place: ends[tp] - read[tp] for tp, place in partitions.items()}
        indexed = sum(read[tp] for tp, (topic, _) in partitions.items() if topic is _PIPELINE[-1])
        return _Reading(time.monotonic(), lag, indexed)

    def _tell_removed(
        self,
        partitions: Mapping[TopicPartition, tuple[Topic, int]],
        committed: Mapping[TopicPartition, int],
        beginnings: Mapping[TopicPartition, int],
    ) -> None:
        """Say and count what retention removed before its group had read it."""
        for tp, removed in self._removed.news(committed, beginnings).items():
            topic, number = partitions[tp]
            REMOVED_UNREAD.labels(topic.base).inc(removed.count)
            log.error(
                "events were removed before they were read; deeplens audit finds their images",
                topic=tp.topic,
                partition=number,
                count=removed.count,
                committed=removed.committed,
                beginning=removed.beginning,
                role=READERS[topic].role.value,
            )

    def _note(self, reading: _Reading) -> None:
        self._readings.append(reading)
        while reading.at - self._readings[0].at > _WINDOW_S:
            self._readings.popleft()
        for (topic, number), count in reading.lag.items():
            CONSUMER_LAG.labels(READERS[topic].role.value, topic.base, str(number)).set(count)
