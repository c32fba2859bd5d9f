"""What compressing vector events would save and cost: ``python -m benchmarks.compression``.

Each codec sends the same events to a topic of its own, in turns, so that other load on the machine
falls on all of them alike.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deeplens_streams.broker.codec import encode
from deeplens_streams.embedded_kafka.server import KafkaServer
from deeplens_streams.runtime.apps import STAGE_REST_MS
from models.events import VectorIndexingData, VectorIndexingRequested, VectorMetadata, utc_now

CODECS = (None, "snappy", "lz4", "zstd", "gzip")
PARTITIONS = 4


@dataclass(frozen=True)
class Figures:
    """Of one run of one codec: seconds, and bytes that Kafka has for it on the disk."""

    send_s: float
    send_cpu_s: float
    kafka_cpu_s: float
    read_cpu_s: float
    disk: int


def vector_events(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Return keys and values like those of ResNet50: none negative, few large."""
    numbers = np.random.default_rng(0)
    for number in range(count):
        vector = numbers.exponential(size=2048)
        image_id = f"img_{number:08x}-954f-430a-8df7-4670ad29cf91"
        event = VectorIndexingRequested.new(
            "acme",
            VectorIndexingData(
                imageId=image_id,
                modelName="resnet50",
                featureVector=cast(Any, (vector / np.linalg.norm(vector)).astype(np.float32)),
                vectorMetadata=VectorMetadata(
                    extractionTime=utc_now(), processingTimeMs=117.428, modelVersion="2"
                ),
            ),
            correlationId="a2ec8c47-5e3a-4ce7-a0fb-f4fe5e716835",
        )
        yield image_id.encode(), encode(event)


def kafka_cpu() -> float:
    java = [each for each in psutil.Process().children(recursive=True) if "java" in each.name()]
    return sum(sum(each.cpu_times()[:2]) for each in java)


def on_disk(folder: Path, topic: str) -> int:
    return sum(each.stat().st_size for each in folder.rglob(f"{topic}-*/*.log"))


async def run_codec(
    kafka: KafkaServer, folder: Path, codec: str | None, events: list[tuple[bytes, bytes]]
) -> Figures:
    topic = f"{codec or 'none'}-{time.monotonic_ns()}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap,
        acks="all",
        linger_ms=STAGE_REST_MS,
        compression_type=codec,
    )
    await producer.start()
    began, cpu, java = time.monotonic(), time.process_time(), kafka_cpu()
    # As many at once as a stage has in hand.
    for first in range(0, len(events), 32):
        sent = [await producer.send(topic, value, key) for key, value in events[first : first + 32]]
        await asyncio.gather(*sent)
    send_s, send_cpu_s, kafka_cpu_s = (
        time.monotonic() - began,
        time.process_time() - cpu,
        kafka_cpu() - java,
    )
    await producer.stop()
    disk = on_disk(folder, topic)
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    cpu, read = time.process_time(), 0
    while read < len(events):
        for messages in (await consumer.getmany(timeout_ms=1000)).values():
            read += len(messages)
    read_cpu_s = time.process_time() - cpu
    await consumer.stop()
    return Figures(send_s, send_cpu_s, kafka_cpu_s, read_cpu_s, disk)


def measure(count: int, rounds: int) -> None:
    events = list(vector_events(count))
    size = sum(len(value) for _, value in events)
    print(f"{count} vector events of {size / count / 1000:.1f} KB, {rounds} rounds, medians")
    found: dict[str | None, list[Figures]] = {codec: [] for codec in CODECS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with KafkaServer(folder) as kafka:
            asyncio.run(
                run_codec(kafka, folder, None, events[:200])
            )  # so that none is the cold one
            for _ in range(rounds):
                for codec in CODECS:
                    run = run_codec(kafka, folder, codec, events)
                    found[codec].append(asyncio.run(run))
    print(f"{'codec':8}{'events/s':>10}{'ms of CPU an event: sending':>30}{'Kafka':>8}", end="")
    print(f"{'reading':>10}{'KB on disk':>12}{'of none':>9}")
    plain = statistics.median(each.disk for each in found[None])
    for codec, runs in found.items():
        of = {
            name: statistics.median(getattr(each, name) for each in runs)
            for name in Figures.__dataclass_fields__
        }
        print(f"{codec or 'none':8}{count / of['send_s']:10.0f}", end="")
        print(f"{1000 * of['send_cpu_s'] / count:30.3f}", end="")
        print(
            f"{1000 * of['kafka_cpu_s'] / count:8.3f}{1000 * of['read_cpu_s'] / count:10.3f}",
            end="",
        )
        print(f"{of['disk'] / count / 1000:12.1f}{of['disk'] / plain:9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    measure(options.events, options.rounds)


if __name__ == "__main__":
    main()
