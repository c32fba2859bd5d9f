"""Topics to which somebody gave more partitions: taken where they can be, else mended."""

import asyncio
import re
import shutil
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewPartitions

from deeplens_streams.broker import mending
from deeplens_streams.broker.admin import admin_client
from deeplens_streams.broker.described import describe_topics, partition_counts
from deeplens_streams.broker.provisioning import DECLARED, ensure_topics
from deeplens_streams.broker.topics import Topic
from deeplens_streams.broker.topology import (
    CHANGELOGS,
    COMPLETED,
    DELETED,
    EXTRACTION,
    FAILED,
    INDEXING,
    PROGRESS,
    READERS,
    STATUS,
    TENANT_CHANGES,
    TENANTS,
    UPLOADED,
    group_id,
)
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.errors import ConfigurationError
from tests.support.commands import command
from tests.support.pipeline import read_all, small_picture
from tests.support.system import Client, System, Worker, until

pytestmark = pytest.mark.kafka


def settings_of(system: System) -> Settings:
    return load_settings(
        broker=system.broker, namespace=system.namespace, data_dir=system.folder / "mend"
    )


async def grow(settings: Settings, counts: dict[Topic, int]) -> None:
    async with admin_client(settings) as admin:
        for topic, count in counts.items():
            await admin.create_partitions({topic.name(settings.namespace): NewPartitions(count)})


async def committed(settings: Settings, topic: Topic) -> dict[int, int]:
    group = group_id(READERS[topic].role, settings.namespace)
    async with admin_client(settings) as admin:
        offsets = await admin.list_consumer_group_offsets(group)
    name = topic.name(settings.namespace)
    return {tp.partition: each.offset for tp, each in offsets.items() if tp.topic == name}


async def test_more_partitions_than_declared_are_taken_where_no_table_is_fed(
    system: System,
) -> None:
    settings = settings_of(system)
    await ensure_topics(settings)
    more = {UPLOADED: 7, EXTRACTION: 6, INDEXING: 5, DELETED: 5, COMPLETED: 3, FAILED: 4}
    await grow(settings, more)
    worker = await system.started()
    client = system.client(worker)
    ids: list[str] = []
    # Each picture's key falls on some partition.
    while {m.partition for m in await read_all(system, EXTRACTION)} != set(range(6)):
        ids += [await client.upload(small_picture()) for _ in range(6)]
        assert set((await client.until_final(ids)).values()) == {"completed"}
        assert len(ids) < 200
    for image_id in ids[:8]:
        async with client.http.delete(f"/api/v1/images/{image_id}") as response:
            assert response.status in {200, 202}
    assert set((await client.until_final(ids[:8])).values()) == {"deleted"}

    # While it runs, too.
    await grow(settings, {EXTRACTION: 8, FAILED: 5})
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    await producer.start()
    for partition in (6, 7):
        name = EXTRACTION.name(system.namespace)
        await producer.send_and_wait(name, b"no event", key=b"k", partition=partition)
    await producer.stop()

    async def all_read() -> bool:
        return {6, 7} <= (await committed(settings, EXTRACTION)).keys()

    await until(all_read, "partitions that were added are read", seconds=90)
    async with client.http.get("/metrics") as response:
        metrics = await response.text()
    name = EXTRACTION.base
    told = re.findall(rf'consumer_lag{{partition="(\d)",role="extract",topic="{name}"', metrics)
    assert set(told) == set("01234567")
    assert len(await read_all(system, FAILED)) == 2
    await ensure_topics(settings)


async def ended(worker: Worker) -> str:
    """Return the last line that a worker wrote, which ended by itself, in order, with 1."""
    assert worker.process is not None
    code = await asyncio.to_thread(worker.process.wait, 90)
    log = worker.log()
    assert code == 1, log[-2000:]
    assert "rashed" not in log
    return log.splitlines()[-1]


async def usage(client: Client) -> int:
    async with client.http.get(f"/api/v1/admin/tenants/{client.tenant}/usage") as response:
        answer: dict[str, Any] = await response.json()
    assert response.status == 200, answer
    return int(answer["images"])


async def test_topics_of_tables_that_grew_are_mended_without_a_loss(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(system)
    worker = await system.started()
    client = system.client(worker)
    ids = [await client.upload(small_picture()) for _ in range(5)]
    await client.until_final(ids)
    fixed = {topic: topic.partitions + 2 for topic in DECLARED if topic.is_fixed}
    assert set(fixed) == {PROGRESS, STATUS, TENANT_CHANGES, TENANTS, *CHANGELOGS}
    await grow(settings, fixed)
    ids += [await client.upload(small_picture()) for _ in range(5)]
    assert "deeplens topics --mend" in await ended(worker)
    worker.start()
    assert "deeplens topics --mend" in await ended(worker)
    listed = await asyncio.to_thread(command, settings, "topics")
    assert (listed.returncode, listed.stderr.count("topics --mend")) == (1, len(fixed))

    # Cut off where the first records are back: nobody starts until it was run again.
    async def cut(*_arguments: Any) -> int:
        raise OSError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(mending, "_write_back", cut)
        async with admin_client(settings) as admin:
            steps = mending.mend(admin, DECLARED, settings, system.folder / "aside")
            with pytest.raises(OSError, match="cut off"):
                await anext(steps)
    with pytest.raises(ConfigurationError, match="is being made again"):
        await ensure_topics(settings)
    elsewhere = ["topics", "--mend", "--aside", str(system.folder / "elsewhere")]
    refused = await asyncio.to_thread(command, settings, *elsewhere)
    assert refused.returncode == 1
    assert "is being mended" in refused.stderr

    arguments = ["topics", "--mend", "--aside", str(system.folder / "aside")]
    mended = await asyncio.to_thread(command, settings, *arguments)
    assert mended.returncode == 0, mended.stderr
    assert mended.stderr.count("records kept") == len(fixed)
    async with admin_client(settings) as admin:
        counts = await partition_counts(admin, DECLARED, settings.namespace)
        assert counts == {topic: topic.partitions for topic in DECLARED}
        described = await describe_topics(admin, DECLARED, settings.namespace)
    assert all(
        described[topic].settings["cleanup.policy"] == topic.config(settings)["cleanup.policy"]  # type: ignore[index]
        for topic in DECLARED
    )

    for has_state in (True, False):
        if not has_state:
            shutil.rmtree(worker.state)
        worker.start()
        await worker.until_ready()
        assert set((await client.until_final(ids)).values()) == {"completed"}
        ids.append(await client.upload(small_picture()))
        await client.until_final(ids)

        async def counted() -> bool:
            return await usage(client) == len(ids)

        await until(counted, "each picture is counted once")
        assert "removed before they were read" not in worker.log()
        worker.stop()
