"""The Python client against the real web layer: every call, every error, and patience."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deeplens_streams.client import Client, Missing, NotReachable, NotReady, Refused, SyncClient
from deeplens_streams.errors import BrokerUnavailable, DeepLensError, UndecodableImage
from deeplens_streams.web import readiness
from tests.support.dead_letters import fail
from tests.support.photographs import cropped_copy, photograph
from tests.support.web_server import TENANT, Web, running, until

NOBODY = "img_00000000-0000-4000-8000-000000000000"
ROCKET = photograph("rocket").data


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path) as found:
        yield found


@pytest.fixture
async def client(served: Web) -> AsyncIterator[Client]:
    async with Client(str(served.client.make_url("/")), attempts=2, pause=at_once) as found:
        yield found


async def at_once(_seconds: float) -> None:
    await asyncio.sleep(0)


async def test_a_picture_s_whole_way(served: Web, client: Client, tmp_path: Path) -> None:
    served.purges = True
    file = tmp_path / "rocket.jpg"
    file.write_bytes(ROCKET)
    uploaded = await client.upload(file, tenant=TENANT, fields={"tags[colour]": "red"})
    again = await client.upload(ROCKET, tenant=TENANT, name="other.jpg")
    assert again.duplicate_of == uploaded.image_id

    following = asyncio.create_task(collected(client, uploaded.image_id))
    await until(lambda: bool(served.feed.watchers[uploaded.image_id]))
    await served.index(uploaded.image_id)
    assert await following == ["uploaded", "completed"]

    image = await client.image(uploaded.image_id)
    assert (image.file_name, image.tags, image.file_size) == (
        "rocket.jpg",
        {"colour": "red"},
        len(ROCKET),
    )
    page = await client.images(tenant=TENANT, status="completed")
    assert [each.image_id for each in page.images] == [image.image_id]
    assert page.next_cursor is None
    assert await client.content(image.image_id) == ROCKET
    assert (await client.thumbnail(image.image_id)).startswith(b"\xff\xd8")

    for query in (cropped_copy(ROCKET), file):
        found = await client.search(
            query, tenant=TENANT, threshold=-1, filters={"tags.colour": "red"}
        )
        assert [hit.image_id for hit in found.results] == [image.image_id]
    assert (await client.search(image.image_id, tenant=TENANT)).results == []

    gone = await client.delete(image.image_id)
    assert gone.completed_at is not None
    assert (await client.status(image.image_id)).status == "deleted"


async def collected(client: Client, image_id: str) -> list[str]:
    return [status.status async for status in client.follow(image_id)]


async def test_dead_letters_and_the_audit(served: Web, client: Client) -> None:
    image_id, letter_id = await fail(served)
    _, bad = await fail(served, UndecodableImage())
    page = await client.dead_letters(filters={"tenantId": TENANT, "code": "INTERNAL"})
    assert [each.letter_id for each in page.dead_letters] == [letter_id]
    letter = await client.dead_letter(letter_id)
    assert letter.raw["originalEvent"]["data"]["imageId"] == image_id

    changed = [each async for each in client.retry_letters([letter_id, bad])]
    assert [each.done for each in changed] == [[letter_id]]
    assert [each.letter_id for each in changed[0].skipped] == [bad]
    filters = {"tenantId": TENANT}
    discarded = [
        each async for each in client.discard_letters(reason="no picture", filters=filters)
    ]
    assert [each.done for each in discarded] == [[bad]]

    lines = [line async for line in client.audit(tenant=TENANT)]
    assert lines[-1]["type"] == "total"
    with pytest.raises(Refused) as refused:
        await client.retry(image_id)
    assert (refused.value.status, refused.value.error_code) == (409, "RETRY_UNDER_WAY")


async def test_a_whole_tenant(served: Web, client: Client) -> None:
    await client.upload(ROCKET, tenant=TENANT)
    purge = await client.delete_tenant(TENANT)
    assert (purge.tenant_id, purge.completed_at) == (TENANT, None)
    assert (await client.tenant_purge(TENANT)).requested_at == purge.requested_at


async def test_errors_say_status_code_and_wait(served: Web, client: Client) -> None:
    with pytest.raises(Missing) as missing:
        await client.status(NOBODY)
    assert (missing.value.status, missing.value.error_code) == (404, "IMAGE_NOT_FOUND")
    with pytest.raises(Refused) as refused:
        await client.upload(b"<html></html>", tenant=TENANT)
    assert (refused.value.status, refused.value.error_code) == (415, "UNSUPPORTED_FORMAT")
    assert refused.value.raw["imageId"] is None
    served.backlog.waiting, served.backlog.drain_rate = 10**6, 10.0
    with pytest.raises(Refused) as busy:
        await client.upload(ROCKET, tenant=TENANT)
    assert busy.value.status == 429
    assert busy.value.retry_after is not None
    served.rows.moving = True
    with pytest.raises(NotReady) as moving:
        await client.status(NOBODY)
    assert moving.value.retry_after == 1


async def test_only_what_does_no_harm_twice_is_sent_twice(served: Web) -> None:
    url, waits = str(served.client.make_url("/")), list[float]()

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    _, letter_id = await fail(served)
    served.broker_fault = BrokerUnavailable()
    async with Client(url, attempts=3, pause=pause) as client:
        with pytest.raises(NotReady):
            await client.upload(ROCKET, tenant="other")
        assert waits == [5, 5]  # as Retry-After says
        with pytest.raises(NotReady):
            async for _ in client.retry_letters([letter_id]):
                pass
        assert len(waits) == 2


async def test_the_key_goes_with_every_request(served: Web) -> None:
    keys: set[str | None] = set()
    assert served.client.app is not None
    served.on_request = lambda request: keys.add(request.headers.get("X-API-Key"))
    async with Client(str(served.client.make_url("/")), api_key="dl_secret") as client:
        image_id = (await client.upload(ROCKET, tenant=TENANT)).image_id
        following = asyncio.create_task(collected(client, image_id))
        await until(lambda: bool(served.feed.watchers[image_id]))
        await served.index(image_id)
        await following
    assert keys == {"dl_secret"}


async def test_what_is_not_there_and_what_is_no_deeplens(served: Web) -> None:
    async with Client("http://127.0.0.1:9", attempts=2, pause=at_once) as nobody:
        with pytest.raises(NotReachable, match="Nothing answers"):
            await nobody.require()
        assert await nobody.readiness() is None
    async with Client(str(served.client.make_url("/static/style.css"))) as page:
        with pytest.raises(Missing):
            await page.require()
    with pytest.raises(DeepLensError, match="is no URL"):
        Client("localhost:8080")


async def test_readiness(served: Web, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH_S", 0.0)
    found = await client.readiness()
    assert found is not None
    assert found.success
    served.checks["broker"] = type(served.checks["broker"])(ok=False, detail="away")
    found = await client.readiness()
    assert found is not None
    assert (found.success, found.checks["broker"].detail) == (False, "away")


def test_the_blocking_client_has_every_call_of_the_other() -> None:
    calls = {
        name
        for name, _ in inspect.getmembers(Client, inspect.isfunction)
        if not name.startswith("_")
    }
    assert calls <= {name for name in vars(SyncClient) if not name.startswith("_")}


async def test_calls_that_block(served: Web) -> None:
    def work() -> list[str]:
        with SyncClient(str(served.client.make_url("/"))) as client:
            image_id = client.upload(ROCKET, tenant=TENANT).image_id
            states = client.follow(image_id)
            first = next(states).status
            asyncio.run_coroutine_threadsafe(served.index(image_id), loop).result()
            return [first, *(status.status for status in states)]

    loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(work) == ["uploaded", "completed"]
