"""What tests of the whole system look at: pictures, topics and points."""

from functools import cache
from typing import Any

from aiokafka import AIOKafkaConsumer

from deeplens_streams.broker.topics import Topic
from deeplens_streams.config import load_settings
from deeplens_streams.vectors import open_vectors
from tests.support.photographs import as_jpeg, photograph
from tests.support.system import System

MODEL = "resnet50-untrained"


@cache
def small_picture() -> bytes:
    return as_jpeg(photograph("coffee").data, pixels=40_000)


def _consumer(system: System, topic: Topic) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        topic.name(system.namespace),
        bootstrap_servers=system.broker.removeprefix("kafka://"),
        auto_offset_reset="earliest",
    )


async def ends_of(system: System, topic: Topic) -> dict[int, int]:
    """Return the offset behind the last message of each partition of a topic."""
    async with _consumer(system, topic) as consumer:
        ends = await consumer.end_offsets(list(consumer.assignment()))
    return {partition.partition: end for partition, end in ends.items()}


async def read_all(system: System, topic: Topic) -> list[Any]:
    """Return every message of a topic."""
    consumer = _consumer(system, topic)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        messages: list[Any] = []
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=1000)).values():
                messages.extend(batch)
        return messages
    finally:
        await consumer.stop()


async def count_points(system: System, tenant: str) -> int:
    """Count a tenant's points; the worker that had the engine must be stopped."""
    vectors = open_vectors(load_settings(data_dir=system.data_dir))
    try:
        return await vectors.count(tenant=tenant, model=MODEL)
    finally:
        await vectors.close()
