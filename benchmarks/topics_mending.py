"""How long ``deeplens topics --mend`` takes for a topic of rows.

    python -m benchmarks.topics_mending

A Kafka of its own gets the compacted topic of statuses, two partitions too many, and rows.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
import uuid
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewPartitions

from deeplens_streams.broker.admin import admin_client
from deeplens_streams.broker.mending import mend
from deeplens_streams.broker.provisioning import DECLARED, ensure_topics
from deeplens_streams.broker.topology import STATUS
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.embedded_kafka.server import KafkaServer

_AT_ONCE = 1000


def row(size: int) -> bytes:
    """Return a row that compresses no better than real ones, which are IDs and times above all."""
    return json.dumps({"schemaVersion": "1.0", "filling": os.urandom(size // 2).hex()}).encode()


async def fill(settings: Settings, count: int, size: int) -> int:
    """Send as many rows; return how many bytes these are."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers, linger_ms=5)
    await producer.start()
    sent = 0
    for first in range(0, count, _AT_ONCE):
        rows = [row(size) for _ in range(min(_AT_ONCE, count - first))]
        name = STATUS.name(settings.namespace)
        waiting = [await producer.send(name, each, uuid.uuid4().bytes) for each in rows]
        await asyncio.gather(*waiting)
        sent += sum(map(len, rows))
    await producer.stop()
    return sent


async def measure(settings: Settings, folder: Path, count: int, size: int) -> None:
    await ensure_topics(settings)
    async with admin_client(settings) as admin:
        more = NewPartitions(STATUS.partitions + 2)
        await admin.create_partitions({STATUS.name(settings.namespace): more})
        sent = await fill(settings, count, size)
        print(f"{count} rows of {sent / count / 1000:.1f} KB on {STATUS.partitions + 2} partitions")
        began = time.monotonic()
        async for done in mend(admin, DECLARED, settings, folder / "mended-topics"):
            print(done)
        print(f"mended in {time.monotonic() - began:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--bytes", type=int, default=1500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, KafkaServer(Path(name)) as kafka:
        settings = load_settings(broker=f"kafka://{kafka.bootstrap}", data_dir=Path(name))
        asyncio.run(measure(settings, Path(name), options.rows, options.bytes))


if __name__ == "__main__":
    main()
