"""Three brokers, storage on S3, API keys on: each broker is killed in turn under load."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from tests.faults.cluster import Cluster
from tests.support.fault_injection import StubExtractor, small_pictures
from tests.support.operators import OPERATOR, admin
from tests.support.s3_server import S3Server
from tests.support.system import Client, System, until
from tests.support.uploads import TENANT, Book, Uploader

pytestmark = [pytest.mark.faults, pytest.mark.s3, pytest.mark.timeout(400)]

#: Uploads a second, and those that are to be answered while a broker is away.
RATE, WHILE_AWAY = 4, 12
WAIT_S = 90


@pytest.fixture
async def cluster(s3: S3Server, tmp_path: Path) -> AsyncIterator[Cluster]:
    assert s3  # what may be missing is asked first
    async with Cluster(tmp_path) as found:
        yield found


@pytest.fixture
async def replicated(
    cluster: Cluster, stub: StubExtractor, tmp_path: Path
) -> AsyncIterator[System]:
    system = System(cluster.urls, f"b{uuid.uuid4().hex[:8]}", tmp_path, stub.url)
    try:
        yield system
    finally:
        await system.close()


async def test_each_broker_is_killed_in_turn(replicated: System, cluster: Cluster) -> None:
    settings = {
        "REPLICATION": "3",
        "STORAGE_URL": "s3://pictures/some/prefix",
        "ADMIN_KEY": OPERATOR,
    }
    one = replicated.worker("one", **settings)
    two = replicated.worker("two", roles="api", **settings)
    for worker in (one, two):
        worker.start()
    await asyncio.gather(*(worker.until_ready(WAIT_S) for worker in (one, two)))
    operator = replicated.client(one, key=OPERATOR)
    made = await admin(operator, "POST", "tenants", {"tenantId": TENANT})
    client = replicated.client(two, TENANT, key=made["apiKey"])

    enough = asyncio.Event()
    uploader = Uploader([one, two], key=made["apiKey"])
    book = uploader.book
    uploads = asyncio.create_task(uploader.send(small_pictures(100), per_second=RATE, until=enough))
    try:
        await more(book, WHILE_AWAY)
        partitions = await cluster.partitions()
        assert {len(each["replicas"]) for each in partitions} == {3}
        for number in range(3):
            await cluster.kill(number)
            await more(book, WHILE_AWAY)
            await cluster.bring_back(number)
        enough.set()
        await uploads
    finally:
        uploads.cancel()
    ids = list(book.accepted.values())
    states = await client.until_final(ids, seconds=WAIT_S, poll_s=0.2)
    assert {each: state for each, state in states.items() if state != "completed"} == {}
    await balanced(operator, book)
    said = dict(Counter(code.split()[0] for _, _, code in book.refusals))
    print(  # noqa: T201 - what a run was worth
        f"{len(ids)} accepted, {len(book.cut)} cut, refused {said}, slowest {book.slowest_s:.1f} s"
    )
    assert {status for each in book.refused.values() for status in each} <= {503}


async def more(book: Book, count: int) -> None:
    """Wait until so many more uploads are answered."""
    wanted = len(book.accepted) + count

    async def is_enough() -> bool:
        return len(book.accepted) >= wanted

    await until(is_enough, f"{count} uploads more", seconds=WAIT_S)


async def balanced(operator: Client, book: Book) -> None:
    """Wait until the audit finds every picture that was answered, completed, and nothing wrong."""

    async def is_clean() -> bool:
        async with operator.http.post("/api/v1/admin/audit") as response:
            lines = [orjson.loads(line) for line in (await response.text()).splitlines()]
        if lines[-1]["type"] != "total" or [each for each in lines if each["type"] == "finding"]:
            return False
        total = lines[-1]
        few, many = len(book.accepted), len(book.accepted) + len(book.cut)
        is_whole = few <= total["accepted"] == total["completed"] <= many
        return is_whole and bool(total["balanced"])

    await until(is_clean, "the ledger is balanced, without a finding", seconds=WAIT_S, poll_s=1)
