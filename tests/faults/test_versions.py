"""Yesterday's release beside the present code, in both directions, and an update under load."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from deeplens_streams.broker import codec
from deeplens_streams.broker.topology import COMPLETED, FAILED
from models.events import ProcessingCompleted, ProcessingFailed
from tests.support import old_release
from tests.support.fault_injection import cut_short, small_pictures
from tests.support.operators import admin
from tests.support.pipeline import count_points, read_all
from tests.support.system import FINAL, Client, System, Worker, until
from tests.support.uploads import TENANT, Uploader

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

STAGES = "process,extract,index"
#: A tenant that is there beside the one whose pictures come.
OTHER = "other-corp"
#: Uploads in each half, at the least, and a second.
UPLOADS, RATE = 25, 3
WAIT_S = 90


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return old_release.unpack(tmp_path_factory.mktemp("yesterday"))


def worker(system: System, name: str, roles: str, code: Path | None) -> Worker:
    made = system.worker(name, roles)
    made.code = code
    return made


async def replaced(old: Worker, new: Worker) -> None:
    """Have `new` do the work of `old`, which may go before, as its engine asks for."""
    await asyncio.to_thread(old.stop)
    new.start()
    await new.until_ready(WAIT_S)


async def all_final(client: Client, ids: list[str]) -> dict[str, str]:
    return await client.until_final(ids, seconds=WAIT_S, poll_s=0.2)


@pytest.mark.parametrize("first", ["yesterday", "today"])
async def test_two_releases_beside_each_other_under_load(
    system: System, yesterday: Path, first: str
) -> None:
    one, other = (yesterday, None) if first == "yesterday" else (None, yesterday)
    api, stages = worker(system, "api-1", "api", one), worker(system, "stages-1", STAGES, other)
    for each in (api, stages):
        each.start()
    await asyncio.gather(*(each.until_ready(WAIT_S) for each in (api, stages)))
    # 1. The one release owns the table, the other does the work.
    apis, enough = [api], asyncio.Event()
    uploader = Uploader(_Growing(apis))
    pictures = small_pictures(2 * UPLOADS)
    uploads = asyncio.create_task(uploader.send(pictures, per_second=RATE, until=enough))
    book, client = uploader.book, system.client(api)
    try:
        await accepted(uploader, UPLOADS)
        gone, mended = await deleted_and_mended(system, client, book.accepted)
        await admin(client, "POST", "tenants", {"tenantId": OTHER, "limits": {"images": 7}})
        # 2. Each takes the other's place, while pictures come.
        second = worker(system, "api-2", "api", other)
        second.start()
        await second.until_ready(WAIT_S)
        apis.append(second)
        fresh = system.client(second)
        await same_answers(client, fresh, list(book.accepted.values()))
        await admin(fresh, "POST", f"tenants/{OTHER}/suspend")
        apis.remove(api)
        await asyncio.to_thread(api.stop)
        await replaced(stages, worker(system, "stages-2", STAGES, one))
        await accepted(uploader, len(book.accepted) + UPLOADS)
        enough.set()
        await uploads
    finally:
        uploads.cancel()
    # 3. Whoever is asked, everything is as it should be.
    ids = [each for each in book.accepted.values() if each != gone] + [mended]
    assert set((await all_final(fresh, ids)).values()) == {"completed"}
    api.start()
    await api.until_ready(WAIT_S)
    await same_answers(client, fresh, [*ids, gone])
    await admin(fresh, "POST", f"tenants/{OTHER}/resume")
    for asked in (client, fresh):
        await balanced(asked, len(ids))
        await knows_other(asked)
    await system.close()
    await no_traces(system, ids, gone, mended)


class _Growing(list[Worker]):
    """Workers in turn, where the list changes meanwhile."""

    def __init__(self, workers: list[Worker]) -> None:
        super().__init__(workers)
        self._workers, self._turn = workers, 0

    def __iter__(self) -> Any:
        while True:
            self._turn += 1
            yield self._workers[self._turn % len(self._workers)]


async def accepted(uploader: Uploader, count: int) -> None:
    async def enough() -> bool:
        return len(uploader.book.accepted) >= count

    await until(enough, f"{count} uploads are accepted", seconds=WAIT_S)


async def deleted_and_mended(
    system: System, client: Client, known: dict[str, str]
) -> tuple[str, str]:
    """Delete one picture; have one fail, mend its bytes, and retry it. Return both."""
    gone = next(iter(known.values()))
    await all_final(client, [gone])
    async with client.http.delete(f"/api/v1/images/{gone}", params={"tenantId": TENANT}) as answer:
        assert answer.status in {200, 202}, await answer.text()
    (good,) = small_pictures(1, seed=9)
    cut = await client.upload(cut_short(good).ljust(len(good), b"\xff"))
    assert (await all_final(client, [cut]))[cut] == "failed"
    (original,) = (system.data_dir / "images" / TENANT / "original").rglob(f"*{cut[4:]}*")
    original.write_bytes(good)
    retry = f"/api/v1/images/{cut}/retry"

    async def is_retried() -> bool:
        # Its letter goes another way than its row.
        async with client.http.post(retry, json={"force": True}) as answer:
            return answer.status in {200, 202}

    await until(is_retried, "it is retried")

    async def is_over() -> bool:
        states = [(await client._ask_status(each))["status"] for each in (gone, cut)]
        return states == ["deleted", "completed"]

    await until(is_over, "one is deleted, the other completed", seconds=WAIT_S)
    return gone, cut


async def same_answers(one: Client, other: Client, ids: list[str]) -> None:
    """Wait until both releases say the same of every picture, for as long as any is on its way."""

    async def agree() -> bool:
        for image_id in ids:
            told = [await each._ask_status(image_id) for each in (one, other)]
            if any(each["status"] not in FINAL for each in told):
                return False
            assert told[0].items() >= {"status": told[1]["status"]}.items()
            assert told[0]["processingSteps"] == told[1]["processingSteps"]
        return True

    await until(agree, "both releases say the same", seconds=WAIT_S, poll_s=0.5)


async def balanced(client: Client, count: int) -> None:
    """Wait until the audit of this release finds every picture, one deleted, and nothing wrong."""
    said: list[Any] = []

    async def is_clean() -> bool:
        async with client.http.post("/api/v1/admin/audit") as response:
            lines = [orjson.loads(line) for line in (await response.text()).splitlines()]
        said[:] = [line for line in lines if line["type"] in {"finding", "total", "error"}]
        wanted = {"type": "total", "accepted": count + 1, "completed": count, "deleted": 1}
        is_whole = wanted.items() <= lines[-1].items() and lines[-1]["balanced"]
        return is_whole and len(said) == 1

    try:
        await until(is_clean, f"{count} completed", seconds=WAIT_S, poll_s=1)
    except AssertionError as error:
        raise AssertionError(f"{error}: {said}") from error


async def knows_other(client: Client) -> None:
    """Wait until this release says what both did of another tenant."""

    async def is_told() -> bool:
        found = (await admin(client, "GET", f"tenants/{OTHER}"))["tenant"]
        return bool(found["state"] == "active" and found["limits"]["images"] == 7)

    await until(is_told, "a tenant is as both releases made it")


async def no_traces(system: System, ids: list[str], gone: str, mended: str) -> None:
    """Look at what is left when all have stopped: each was completed once, and nothing failed."""
    failed = [codec.decode(ProcessingFailed, each.value) for each in await read_all(system, FAILED)]
    assert [(each.image_id, each.data.errorCode) for each in failed] == [
        (mended, "UNDECODABLE_IMAGE")
    ]
    event_ids: dict[str | None, set[str]] = {}
    for message in await read_all(system, COMPLETED):
        event = codec.decode(ProcessingCompleted, message.value)
        event_ids.setdefault(event.image_id, set()).add(event.eventId)
    assert event_ids.keys() == {*ids, gone}
    assert all(len(each) == 1 for each in event_ids.values())
    assert await count_points(system, TENANT) == len(ids)
