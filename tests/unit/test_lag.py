"""What the last reading of consumer lag is worth."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from aiokafka import TopicPartition
from prometheus_client import generate_latest

from deeplens_streams.broker.lag import LagReader, Timings, _Reading
from deeplens_streams.broker.topics import Topic
from deeplens_streams.broker.topology import (
    COMPLETED,
    EXTRACTION,
    FAILED,
    PROGRESS,
    READERS,
    TENANT_CHANGES,
    UPLOADED,
    group_id,
)
from deeplens_streams.config import load_settings
from deeplens_streams.host.ports import free_port
from deeplens_streams.metrics import REMOVED_UNREAD

FRESH_S = Timings().fresh_s


@pytest.fixture
def reader(tmp_path: Path) -> LagReader:
    return LagReader(load_settings(data_dir=tmp_path, weights="untrained"))


def reading(seconds_ago: float, *, waiting: int, indexed: int) -> _Reading:
    counts = {(UPLOADED, 0): waiting, (PROGRESS, 0): 7}
    return _Reading(time.monotonic() - seconds_ago, counts, indexed)


def test_before_the_first_reading_nothing_is_known(reader: LagReader) -> None:
    assert (reader.waiting, reader.drain_rate) == (None, None)


def test_a_reading_says_what_waits_and_two_how_fast_it_drains(reader: LagReader) -> None:
    reader._note(reading(4, waiting=5, indexed=100))
    reader._note(reading(0, waiting=3, indexed=140))
    assert reader.waiting == 3
    assert reader.drain_rate == pytest.approx(10, rel=0.1)


def test_an_old_reading_says_nothing_any_more(reader: LagReader) -> None:
    reader._note(reading(FRESH_S + 2, waiting=5, indexed=100))
    reader._note(reading(FRESH_S + 1, waiting=0, indexed=140))
    assert (reader.waiting, reader.drain_rate) == (None, None)


async def test_old_figures_leave_the_metrics(tmp_path: Path) -> None:
    """Kafka has not answered since: the last figures would be taken for what is so now."""
    nowhere = load_settings(
        data_dir=tmp_path, weights="untrained", broker=f"kafka://127.0.0.1:{free_port()}"
    )
    reader = LagReader(nowhere, Timings(every_s=0.01))
    reader._note(reading(0, waiting=5, indexed=100))
    await reader.start()
    try:
        await asyncio.sleep(0)
        assert 'deeplens_consumer_lag{partition="0",role="process"' in metrics()
        reader._timings = replace(reader._timings, fresh_s=0.0)
        async with asyncio.timeout(10):
            while True:
                if "deeplens_consumer_lag{" not in metrics():
                    break
                await asyncio.sleep(0.01)
    finally:
        await reader.stop()


def metrics() -> str:
    return generate_latest().decode()


class Kafka:
    """Consumer and admin client: where partitions begin and end, and what was committed.

    Only of each topic's first partition is there anything.
    """

    def __init__(self) -> None:
        self.partitions = {topic.base: topic.partitions for topic in READERS}
        self.beginnings: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.read: dict[str, int] = {}
        self.asked_at = datetime.now(UTC)

    async def list_topics(self) -> list[str]:
        return [*self.partitions, "a.strangers"]

    async def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        return [
            {"topic": name, "error_code": 0, "partitions": [{}] * self.partitions[name]}
            for name in names
        ]

    async def list_consumer_group_offsets(self, group: str) -> dict[TopicPartition, Any]:
        return {
            TopicPartition(topic.base, 0): SimpleNamespace(offset=self.read[topic.base])
            for topic, stage in READERS.items()
            if topic.base in self.read and group == group_id(stage.role, "")
        }

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[Any, int]:
        return self._first(partitions, self.beginnings)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        self.asked_at = datetime.now(UTC)
        return self._first(partitions, self.ends)

    def _first(self, partitions: list[TopicPartition], offsets: dict[str, int]) -> dict[Any, int]:
        return {tp: offsets.get(tp.topic, 0) if tp.partition == 0 else 0 for tp in partitions}


async def look(reader: LagReader, kafka: Kafka) -> _Reading:
    found = await reader._reading(cast(Any, kafka), cast(Any, kafka))
    reader._note(found)
    return found


async def test_each_reading_moves_the_watermark(reader: LagReader) -> None:
    kafka = Kafka()
    assert reader.read_up_to is None
    kafka.ends[PROGRESS.base] = 3
    await look(reader, kafka)
    assert reader.read_up_to is None
    kafka.read[PROGRESS.base] = 3
    # Whether it counts for its tenant is told there.
    kafka.ends[TENANT_CHANGES.base] = 9
    await look(reader, kafka)
    assert reader.read_up_to is None
    kafka.read[TENANT_CHANGES.base] = 9
    # What notifications have read is another matter.
    kafka.ends[COMPLETED.base] = 9
    before = datetime.now(UTC)
    await look(reader, kafka)
    first = reader.read_up_to
    assert first is not None
    assert before <= first <= kafka.asked_at
    kafka.ends[UPLOADED.base] = 1
    await look(reader, kafka)
    assert reader.read_up_to == first


def removed(topic: Topic) -> float:
    return REMOVED_UNREAD.labels(topic.base)._value.get()


async def test_what_was_removed_unread_holds_nothing_back(reader: LagReader) -> None:
    """Nobody will ever read it: it is no lag, no backlog, and on nobody's way."""
    kafka, before = Kafka(), removed(EXTRACTION)
    kafka.ends[EXTRACTION.base], kafka.read[EXTRACTION.base] = 100, 40
    await look(reader, kafka)
    assert (reader.waiting, reader.read_up_to) == (60, None)
    kafka.beginnings[EXTRACTION.base] = 94
    assert (await look(reader, kafka)).lag[EXTRACTION, 0] == 6
    assert reader.waiting == 6
    assert removed(EXTRACTION) - before == 54
    kafka.beginnings[EXTRACTION.base] = 100
    await look(reader, kafka)
    assert reader.waiting == 0
    assert reader.read_up_to is not None
    assert removed(EXTRACTION) - before == 60


async def test_each_loss_is_told_once(reader: LagReader) -> None:
    kafka, before = Kafka(), removed(UPLOADED)
    kafka.ends[UPLOADED.base] = kafka.beginnings[UPLOADED.base] = 7
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            await look(reader, kafka)
    (line,) = lines
    assert (line["topic"], line["partition"], line["count"]) == (UPLOADED.base, 0, 7)
    assert (line["committed"], line["role"]) == (None, "process")
    assert removed(UPLOADED) - before == 7


async def test_a_partition_that_was_added_counts(reader: LagReader) -> None:
    kafka = Kafka()
    await look(reader, kafka)
    kafka.partitions[EXTRACTION.base] = 9
    assert (EXTRACTION, 8) in (await look(reader, kafka)).lag


async def test_a_topic_that_is_gone_counts_for_nothing(reader: LagReader) -> None:
    kafka = Kafka()
    kafka.ends[COMPLETED.base] = kafka.ends[FAILED.base] = 5
    await look(reader, kafka)
    del kafka.partitions[FAILED.base], kafka.partitions[COMPLETED.base]
    assert {topic for topic, _ in (await look(reader, kafka)).lag} == set(READERS) - {
        FAILED,
        COMPLETED,
    }
    assert reader.read_up_to is not None
