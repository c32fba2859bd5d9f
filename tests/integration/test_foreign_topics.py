"""What others do to our topics: compress what is on them, remove it, give them more partitions."""

import asyncio
import json
import re
import subprocess
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete

from deeplens_streams.broker import codec
from deeplens_streams.broker.admin import admin_client
from deeplens_streams.broker.described import describe_topics
from deeplens_streams.broker.provisioning import DECLARED, ensure_topics
from deeplens_streams.broker.topology import (
    EXTRACTION,
    FAILED,
    INDEXING,
    PROGRESS,
    STATUS,
    UPLOADED,
)
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.embedded_kafka.server import KafkaServer
from deeplens_streams.errors import ConfigurationError
from models.events import ProcessingFailed
from tests.support.commands import command
from tests.support.pipeline import read_all, small_picture
from tests.support.system import Client, System, until

pytestmark = pytest.mark.kafka

CODECS = ("gzip", "snappy", "lz4", "zstd")


async def test_compressed_records_are_read_as_any_other(system: System) -> None:
    """A broker recompresses what a topic's setting asks for, and a producer may by itself."""
    settings = load_settings(broker=system.broker, namespace=system.namespace)
    compressed = dict(zip((UPLOADED, EXTRACTION, INDEXING, PROGRESS), CODECS, strict=True))
    async with admin_client(settings) as admin:
        await admin.create_topics(
            [
                NewTopic(
                    topic.name(system.namespace),
                    topic.partitions,
                    1,
                    topic_configs=topic.config(settings) | {"compression.type": name},
                )
                for topic, name in (compressed | {STATUS: "zstd"}).items()
            ]
        )
    worker = await system.started(COMPRESSION="zstd")
    client = system.client(worker)
    ids = [await client.upload(small_picture()) for _ in range(3)]
    assert set((await client.until_final(ids)).values()) == {"completed"}

    garbage = {name: f'{{"by": "{name}"}}'.encode() for name in CODECS}
    for name, value in garbage.items():
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap_servers, compression_type=name
        )
        await producer.start()
        for topic in (UPLOADED, EXTRACTION, INDEXING, PROGRESS):
            await producer.send_and_wait(topic.name(system.namespace), value, key=b"k")
        await producer.stop()

    async def all_read() -> bool:
        letters = [codec.decode(ProcessingFailed, m.value) for m in await read_all(system, FAILED)]
        return len(letters) == len(garbage) * len(compressed)

    await until(all_read, "a dead letter of each record that is no event of ours")
    assert worker.process is not None
    assert worker.process.poll() is None


async def audit(client: Client, **query: str) -> list[dict[str, Any]]:
    async with client.http.post("/api/v1/admin/audit", params=query) as response:
        return [json.loads(line) async for line in response.content]


async def test_what_was_removed_unread_is_told_and_found_by_an_audit(system: System) -> None:
    worker = system.worker(roles="api,process,index")
    worker._args = ["tests.support.impatient_worker", "worker", "-l", "info"]
    worker.start()
    await worker.until_ready()
    client = system.client(worker)
    ids = [await client.upload(small_picture()) for _ in range(3)]

    async def all_wait() -> bool:
        return len(await read_all(system, EXTRACTION)) == len(ids)

    await until(all_wait, "a request for each picture")
    name = EXTRACTION.name(system.namespace)
    settings = load_settings(broker=system.broker, namespace=system.namespace)
    async with admin_client(settings) as admin:
        await admin.delete_records(
            {TopicPartition(name, each): RecordsToDelete(-1) for each in range(4)}
        )

    async def stuck() -> list[str]:
        lines = await audit(client)
        return [line["imageId"] for line in lines if line.get("fault") == "stuck"]

    async def all_stuck() -> bool:
        return sorted(await stuck()) == sorted(ids)

    await until(all_stuck, "each of the pictures is found to be stuck")
    async with client.http.get("/metrics") as response:
        metrics = await response.text()
    told = re.findall(r'removed_unread_total\{topic="([a-z.]+)"\} ([0-9.]+)', metrics)
    assert told == [(EXTRACTION.base, f"{len(ids):.1f}")]
    said = [line for line in worker.log().splitlines() if "removed before they were read" in line]
    assert sum(json.loads(line)["count"] for line in said) == len(ids)

    await audit(client, repair="true")
    await system.started("two", roles="extract")
    assert set((await client.until_final(ids)).values()) == {"completed"}


def states(ended: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, frozenset[str]]]:
    """Return what ``deeplens topics --json`` said of each topic."""
    return {
        row["name"]: (row["state"], frozenset(each["setting"] for each in row["deviations"]))
        for row in json.loads(ended.stdout)["topics"]
    }


async def make_topics(settings: Settings) -> None:
    """Make every topic as somebody does who knows their names and partitions alone."""
    async with admin_client(settings) as admin:
        await admin.create_topics(
            [
                NewTopic(
                    topic.name(settings.namespace),
                    topic.partitions,
                    1,
                    topic_configs={"compression.type": "lz4"},
                )
                for topic in DECLARED
            ]
        )


async def test_topics_that_others_made_are_named_and_put_right(kafka: KafkaServer) -> None:
    settings = load_settings(broker=f"kafka://{kafka.bootstrap}", namespace="made-by-others")
    await make_topics(settings)
    with pytest.raises(ConfigurationError) as refusal:
        await ensure_topics(settings)
    assert "made-by-others.deeplens.tenants has cleanup.policy=delete" in refusal.value.message
    assert "deeplens topics --apply" in refusal.value.message

    named = await asyncio.to_thread(command, settings, "topics", "--json")
    assert named.returncode == 1
    rows = states(named)
    assert rows[UPLOADED.name(settings.namespace)] == ("ok", frozenset())
    compacted = [each.name(settings.namespace) for each in DECLARED if each.retention is None]
    assert len(compacted) == 4
    for name in compacted:
        assert rows[name][0] == "wrong setting"
        assert "cleanup.policy" in rows[name][1]
    assert rows[FAILED.name(settings.namespace)][1] == {"retention.ms"}
    doctor = await asyncio.to_thread(command, settings, "doctor", "--json")
    (check,) = [each for each in json.loads(doctor.stdout) if each["check"] == "topics"]
    assert check["state"] == "fail"
    assert "cleanup.policy" in check["detail"]

    applied = await asyncio.to_thread(command, settings, "topics", "--json", "--apply")
    assert (applied.returncode, set(states(applied).values())) == (0, {("ok", frozenset())})
    await ensure_topics(settings)
    async with admin_client(settings) as admin:
        described = await describe_topics(admin, DECLARED, settings.namespace)
    assert {each.overrides["compression.type"] for each in described.values()} == {"lz4"}
    again = await asyncio.to_thread(command, settings, "topics", "--apply")
    assert (again.returncode, again.stderr) == (0, "")
