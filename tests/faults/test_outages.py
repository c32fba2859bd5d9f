"""A dependency is away for a minute: uploads go on, nothing is lost, no attempt is spent."""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deeplens_streams.embedded_kafka.server import KafkaServer
from deeplens_streams.errors import ExtractorUnavailable
from tests.faults.outages import MAX_LINES, STAGES, lines_of, steps_of
from tests.support.fault_injection import StubExtractor, fill, small_pictures
from tests.support.s3_server import S3Server
from tests.support.system import Client, System, Worker
from tests.support.uploads import TENANT, Uploader

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

OUTAGE_S = 60
KAFKA_OUTAGE_S = 45
RETURN_S = 30
SHOWN_S = 10


async def waiting_steps(client: Client, ids: list[str]) -> list[dict[str, Any]]:
    """Return the first step that is not at its end of each picture of which a stage has said so."""
    found = []
    for image_id in ids:
        async with client.http.get(f"/api/v1/images/{image_id}/status") as response:
            if response.status == 503:  # nobody has said anything of it, and storage cannot
                continue
            steps = (await response.json())["processingSteps"]
        left = [each for each in steps if each["status"] not in {"completed", "skipped"}]
        # Thumbnails come with the extraction.
        found += [each for each in left if each["step"] != "thumbnail_generation"][:1]
    return found


async def uploaded(worker: Worker, count: int, *, seed: int, per_second: float) -> list[str]:
    """Upload pictures that must all be taken at the first try."""
    book = await Uploader([worker]).send(small_pictures(count, seed=seed), per_second=per_second)
    assert not book.refused
    assert not book.cut
    return list(book.accepted.values())


async def complete(client: Client, ids: list[str]) -> None:
    states = await client.until_final(ids, seconds=RETURN_S, poll_s=0.1)
    assert set(states.values()) == {"completed"}
    for image_id in ids:
        for step in (await steps_of(client, image_id)).values():
            assert step["attempt"] == 1, step


async def test_without_an_extractor(system: System, stub: StubExtractor) -> None:
    worker = await system.started("one")
    client = system.client(worker, TENANT)
    await complete(client, await uploaded(worker, 5, seed=1, per_second=20))
    begin = len(worker.log())
    await asyncio.to_thread(stub.kill)

    ids = await uploaded(worker, 120, seed=2, per_second=2)
    waiting = await steps_of(client, ids[0])
    assert waiting["image_processing"]["status"] == "completed"
    assert waiting["feature_extraction"]["status"] == "retrying"
    assert "does not answer" in waiting["feature_extraction"]["errorMessage"]
    # So do those that nobody has in hand yet.
    async with asyncio.timeout(SHOWN_S):
        last = await steps_of(client, ids[-1])
        while last["image_processing"]["status"] == "pending":  # it was uploaded a moment ago
            await asyncio.sleep(0.1)
            last = await steps_of(client, ids[-1])
    assert last["feature_extraction"]["status"] == "retrying"
    assert last["feature_extraction"]["errorMessage"] == ExtractorUnavailable().message
    assert last["feature_extraction"]["attempt"] == 0
    async with client.http.get("/health/ready") as response:
        checks = (await response.json())["checks"]
    assert checks["extractor"]["breaker"] in {"open", "half-open"}
    async with client.http.get("/metrics") as response:
        text = await response.text()
    assert 'deeplens_breaker_open{dependency="extractor"} 1.0' in text
    assert 'deeplens_consumer_lag{partition="0",role="extract"' in text

    stub.start()
    await stub.until_ready()
    await complete(client, ids)
    said = lines_of(worker, begin)
    assert said.total() <= MAX_LINES, said


async def test_an_extractor_that_hangs(system: System, stub: StubExtractor) -> None:
    worker = await system.started("one")
    client = system.client(worker, TENANT)
    await complete(client, await uploaded(worker, 5, seed=1, per_second=20))
    assert stub.process is not None
    os.kill(stub.process.pid, signal.SIGSTOP)
    ids = await uploaded(worker, 30, seed=2, per_second=2)
    await asyncio.sleep(OUTAGE_S / 3)
    os.kill(stub.process.pid, signal.SIGCONT)
    await complete(client, ids)


async def test_without_a_vector_engine(system: System, small_disk: Path, tmp_path: Path) -> None:
    """The embedded engine refuses to write where its disk is nearly full."""
    worker = await system.started(
        "one", DATA_DIR=str(small_disk / "data"), STORAGE_URL=(tmp_path / "images").as_uri()
    )
    client = system.client(worker, TENANT)
    await complete(client, await uploaded(worker, 5, seed=1, per_second=20))
    begin = len(worker.log())
    ballast = await asyncio.to_thread(fill, small_disk, 100 << 20)
    ids = await uploaded(worker, 120, seed=2, per_second=2)
    waiting = await steps_of(client, ids[0])
    assert waiting["feature_extraction"]["status"] == "completed"
    assert waiting["vector_indexing"]["status"] == "retrying"
    assert "no room" in waiting["vector_indexing"]["errorMessage"]
    ballast.unlink()
    await complete(client, ids)
    said = lines_of(worker, begin)
    assert said.total() <= MAX_LINES, said


async def test_without_storage(system: System, s3: S3Server) -> None:
    worker = await system.started("one", STORAGE_URL="s3://pictures/some/prefix")
    client = system.client(worker, TENANT)
    await complete(client, await uploaded(worker, 5, seed=1, per_second=20))
    # Some are on their way when it goes.
    ids = await uploaded(worker, 40, seed=2, per_second=200)
    begin = len(worker.log())
    s3.kill()

    uploader = Uploader([worker])
    loop = asyncio.get_running_loop()
    end = loop.time() + OUTAGE_S
    async with aiohttp.ClientSession() as http:
        for number, picture in enumerate(small_pictures(60, seed=3)):
            await uploader.one(http, f"{number}.jpg", picture)
            await asyncio.sleep(max(0.0, (end - loop.time()) / (60 - number)))
        assert not uploader.book.accepted
        assert {status for each in uploader.book.refused.values() for status in each} == {503}
        async with http.get(f"{worker.url}/api/v1/images/{ids[0]}/status") as response:
            assert response.status == 200
        waiting = await waiting_steps(client, ids)
        assert waiting
        assert {step["status"] for step in waiting} == {"retrying"}
        assert {"storage" in (step["errorMessage"] or "") for step in waiting} == {True}
        await asyncio.to_thread(s3.start)
        await complete(client, ids)
        said = lines_of(worker, begin)
        assert said.total() <= MAX_LINES * STAGES, said
        await complete(client, await uploaded(worker, 5, seed=4, per_second=20))
        # What was refused is not there.
        async with http.get(f"{worker.url}/api/v1/images?tenantId={TENANT}&limit=200") as response:
            names = [image["fileName"] for image in (await response.json())["images"]]
        assert not set(names) & set(uploader.book.refused)


async def test_without_kafka(system: System, own_kafka: KafkaServer, tmp_path: Path) -> None:
    worker = await system.started("one")
    client = system.client(worker, TENANT)
    ids = await uploaded(worker, 60, seed=1, per_second=100)
    begin = len(worker.log())
    own_kafka.kill()
    await asyncio.to_thread(own_kafka.stop)

    # Longer than the 30 s for which the Kafka client keeps what it could not send.
    uploader = Uploader([worker])
    loop = asyncio.get_running_loop()
    end = loop.time() + KAFKA_OUTAGE_S
    async with aiohttp.ClientSession() as http:
        for number, picture in enumerate(small_pictures(20, seed=2)):
            await uploader.one(http, f"{number}.jpg", picture)
            await asyncio.sleep(max(0.0, (end - loop.time()) / (20 - number)))
        assert not uploader.book.accepted
        async with http.get(f"{worker.url}/api/v1/images/{ids[0]}/status") as response:
            assert response.status in {200, 503}
    again = KafkaServer(tmp_path / "kafka")
    try:
        await asyncio.to_thread(again.start)
        await complete(client, ids)
        await complete(client, await uploaded(worker, 5, seed=3, per_second=5))
        said = lines_of(worker, begin)
        assert said.total() <= MAX_LINES * STAGES, said
        # What was written to the table meanwhile is in its changelog, too.
        await asyncio.to_thread(worker.kill)
        shutil.rmtree(worker.state)
        worker.start()
        await worker.until_ready()
        assert {(await client.status(each))["status"] for each in ids} == {"completed"}
        await system.close()
    finally:
        await asyncio.to_thread(again.stop)
