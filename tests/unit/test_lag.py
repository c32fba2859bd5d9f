"""What the last reading of consumer lag is worth."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from prometheus_client import generate_latest

from deeplens_streams import lag
from deeplens_streams.config import load_settings
from deeplens_streams.kafka.ports import free_port
from deeplens_streams.lag import LagReader, _Reading
from deeplens_streams.topics import PROGRESS, TENANT_CHANGES, UPLOADED


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
    reader._note(reading(lag._FRESH_S + 2, waiting=5, indexed=100))
    reader._note(reading(lag._FRESH_S + 1, waiting=0, indexed=140))
    assert (reader.waiting, reader.drain_rate) == (None, None)


async def test_old_figures_leave_the_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka has not answered since: the last figures would be taken for what is so now."""
    monkeypatch.setattr(lag, "_EVERY_S", 0.01)
    nowhere = load_settings(
        data_dir=tmp_path, weights="untrained", broker=f"kafka://127.0.0.1:{free_port()}"
    )
    reader = LagReader(nowhere)
    reader._note(reading(0, waiting=5, indexed=100))
    await reader.start()
    try:
        await asyncio.sleep(0)
        assert 'deeplens_consumer_lag{partition="0",role="process"' in metrics()
        monkeypatch.setattr(lag, "_FRESH_S", 0.0)
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
    """Consumer and admin client: where partitions end, and what was committed."""

    def __init__(self) -> None:
        self.ends: dict[str, int] = {}
        self.read: dict[str, int] = {}
        self.asked_at = datetime.now(UTC)

    async def list_consumer_group_offsets(self, group: str) -> dict[TopicPartition, Any]:
        if group != "deeplens-api":
            return {}
        return {
            TopicPartition(topic, 0): SimpleNamespace(offset=offset)
            for topic, offset in self.read.items()
        }

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[Any, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        self.asked_at = datetime.now(UTC)
        return {tp: self.ends.get(tp.topic, 0) if tp.partition == 0 else 0 for tp in partitions}


async def test_each_reading_moves_the_watermark(reader: LagReader) -> None:
    kafka = Kafka()

    async def look() -> datetime | None:
        await reader._reading(cast(Any, kafka), cast(Any, kafka))
        return reader.read_up_to

    assert reader.read_up_to is None
    kafka.ends[PROGRESS.base] = 3
    assert await look() is None
    kafka.read[PROGRESS.base] = 3
    # Tenants are another matter.
    kafka.ends[TENANT_CHANGES.base] = 9
    before = datetime.now(UTC)
    first = await look()
    assert first is not None
    assert before <= first <= kafka.asked_at
    kafka.ends[UPLOADED.base] = 1
    assert await look() == first
