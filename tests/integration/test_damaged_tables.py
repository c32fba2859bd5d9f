"""A table's folder that is damaged, and a Kafka that lost what a folder has, on real ones."""

import asyncio
import os
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deeplens_streams.broker.admin import admin_client
from deeplens_streams.config import load_settings
from deeplens_streams.embedded_kafka.server import KafkaServer
from tests.support.pipeline import small_picture
from tests.support.system import Client, Extractor, System, Worker, until

pytestmark = pytest.mark.kafka

RECOVERED = "deeplens_table_partitions_replaced_total"


def folder(worker: Worker, partition: int) -> Path:
    (found,) = worker.state.glob(f"api/**/image_status-{partition}.db")
    return found


async def statuses(client: Client, ids: list[str]) -> dict[str, tuple[int, str | None]]:
    """Return each image's HTTP status and state."""

    async def one(image_id: str) -> tuple[int, str | None]:
        async with client.http.get(f"/api/v1/images/{image_id}/status") as response:
            return response.status, (await response.json())["status"]

    return dict(zip(ids, await asyncio.gather(*map(one, ids)), strict=True))


async def metric(client: Client, name: str) -> float:
    async with client.http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))


async def tables_check(client: Client) -> str:
    async with client.http.get("/health/ready") as response:
        detail: str = (await response.json())["checks"]["tables"]["detail"]
        return detail


def damage(database: Path) -> None:
    """Have blocks in the middle of every table file of a partition be noise."""
    files = list(database.glob("*.sst"))
    assert files
    for each in files:
        with each.open("r+b") as file:
            file.seek(each.stat().st_size // 4)
            file.write(os.urandom(each.stat().st_size // 4))


async def test_a_damaged_partition_is_mended_while_the_others_go_on(system: System) -> None:
    worker = await system.started()
    client = system.client(worker)
    picture = small_picture()
    ids = await asyncio.gather(*(client.upload(picture) for _ in range(60)))
    await client.until_final(ids)
    worker.stop()  # RocksDB writes what it has to its tables
    damage(folder(worker, 3))
    (folder(worker, 5) / "CURRENT").write_bytes(b"")

    worker.start()
    await worker.until_ready()
    assert await metric(client, RECOVERED) >= 1

    async def all_there() -> bool:
        found = await statuses(client, ids)
        assert {status for status, _ in found.values()} <= {200, 503}, found
        return set(found.values()) == {(200, "completed")}

    await until(all_there, "every row is there again")
    more = await asyncio.gather(*(client.upload(picture) for _ in range(30)))
    await client.until_final(more)
    async with client.http.get("/tables/image_status", params={"limit": "200"}) as response:
        page = await response.json()
    assert page["complete"], page
    assert set(page["keys"]) == {*ids, *more}
    assert await tables_check(client) == ""
    assert await metric(client, RECOVERED) == 2
    assert len(list(worker.state.glob("api/**/image_status-*.db.damaged-*"))) == 2
    assert "a partition of a table is read from Kafka again" in worker.log()


async def test_a_kafka_that_lost_its_data_and_a_state_that_did_not(
    extractor: Extractor, tmp_path: Path
) -> None:
    first, second = KafkaServer(tmp_path / "kafka-1"), KafkaServer(tmp_path / "kafka-2")
    system = System("", "t", tmp_path, extractor.url)
    try:
        await asyncio.to_thread(first.start)
        system.broker = f"kafka://{first.bootstrap}"
        worker = await system.started()
        client = system.client(worker)
        ids = [await client.upload(small_picture()) for _ in range(6)]
        await client.until_final(ids)
        worker.stop()
        await asyncio.to_thread(first.stop)
        await asyncio.to_thread(second.start)
        system.broker = f"kafka://{second.bootstrap}"
        again = await system.started()
        assert again.state == worker.state
        client = system.client(again)
        found = await statuses(client, ids)
        # Storage has the pictures; that they were completed an audit finds out again.
        assert set(found.values()) == {(200, "uploaded")}
        more = [await client.upload(small_picture()) for _ in range(6)]
        await client.until_final(more)
        assert list(again.state.glob("api/**/image_status-*.db.damaged-*"))
    finally:
        await system.close()
        for kafka in (first, second):
            await asyncio.to_thread(kafka.stop)


async def test_what_ended_a_worker_is_the_last_that_it_says(system: System) -> None:
    worker = await system.started()
    client = system.client(worker)
    await client.until_final([await client.upload(small_picture())])
    worker.stop()
    tables = folder(worker, 0).parent
    # Nobody can make folders here, and neither rights nor root have a say in it.
    for each in tables.iterdir():
        if each.is_dir():
            each.rename(each.with_name(f"old-{each.name}"))
    tables.rename(tables.with_name("old"))
    tables.write_text("a file")
    worker.start()

    async def ended() -> bool:
        return worker.process is not None and worker.process.poll() is not None

    await until(ended, "the worker ends")
    assert worker.process is not None
    assert worker.process.returncode == 1
    last = worker.log().strip().splitlines()[-1]
    assert last.startswith("deeplens: "), last
    assert "shutting down" not in last
    assert str(tables) in last


async def test_a_copy_that_may_have_missed_a_deletion_is_not_gone_on_with(system: System) -> None:
    """What is longer than a moment ago may be gone here, where Kafka keeps it for a second."""
    worker = await system.started()
    client = system.client(worker)
    ids = await asyncio.gather(*(client.upload(small_picture()) for _ in range(60)))
    await client.until_final(ids)
    worker.stop()
    changelog = f"{system.namespace}-deeplens-api-image_status-changelog"
    kept = {"delete.retention.ms": "1000", "cleanup.policy": "compact"}
    async with admin_client(load_settings(broker=system.broker)) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, changelog, kept)])
    producer = AIOKafkaProducer(bootstrap_servers=system.broker.removeprefix("kafka://"))
    await producer.start()
    try:
        # Of partition 0 there is something that its copy has not read; the others are whole.
        await producer.send_and_wait(changelog, None, key=b"img_gone", partition=0)
    finally:
        await producer.stop()
    worker.start()
    await worker.until_ready()
    async with client.http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    replaced = [line for line in lines if line.startswith(RECOVERED + "{")]
    assert replaced == [RECOVERED + '{reason="too_old",table="image_status"} 1.0'], worker.log()[
        -9000:
    ]
    found = await statuses(client, ids)
    assert set(found.values()) == {(200, "completed")}
    assert not list(worker.state.glob("api/**/*.damaged-*"))
