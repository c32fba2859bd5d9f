"""``/api/v1/admin/tenants``: making, changing and removing tenants, and their limits."""

import asyncio
import inspect
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from aiohttp import FormData

from deeplens_streams.broker.faust_transport import SESSION_TIMEOUT_S
from deeplens_streams.client import Client
from deeplens_streams.errors import (
    BrokerUnavailable,
    QuotaExceeded,
    RegistryUnavailable,
    StorageUnavailable,
    TenantDeleting,
)
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.tenancy import api_keys, registry
from deeplens_streams.tenancy.quotas import Quotas, Timings
from deeplens_streams.tenancy.registry import Registry
from tests.support.api_keys import OPERATOR, ask, tenant_key, uploaded
from tests.support.photographs import photograph
from tests.support.stored_images import image as made_image
from tests.support.web_server import UPLOAD, Web, row_of, running, until

TENANTS = "/api/v1/admin/tenants"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path, admin_key=OPERATOR) as web:
        web.indexes = web.purges = web.counts = True
        yield web


async def send(web: Web, key: str, content: bytes, **fields: str) -> tuple[int, dict[str, Any]]:
    form = FormData(default_to_multipart=True)
    form.add_field("file", content, filename="a.jpg")
    for name, value in fields.items():
        form.add_field(name, value)
    async with web.client.post(UPLOAD, data=form, headers={"X-API-Key": key}) as response:
        answer: dict[str, Any] = await response.json()
        if response.status == 429:
            assert int(response.headers["Retry-After"]) > 0
        return response.status, answer


def picture(number: int) -> bytes:
    """Return a picture that differs from the others behind its end."""
    return photograph("rocket").data + number.to_bytes(4, "big")


async def test_a_tenant_is_created_with_all_that_it_needs(served: Web) -> None:
    body = {"tenantId": "acme", "limits": {"images": 5}}
    status, answer = await ask(served, "POST", TENANTS, OPERATOR, body)
    assert status == 201
    assert {each["status"] for each in answer["steps"]} == {"completed"}
    assert answer["tenant"]["limits"]["images"] == 5
    assert answer["tenant"]["provisioned"] is True
    assert (await ask(served, "GET", "/api/v1/images", answer["apiKey"]))[0] == 200
    status, answer = await ask(served, "POST", TENANTS, OPERATOR, body)
    assert (status, answer["errorCode"]) == (409, "TENANT_EXISTS")


async def test_creating_goes_on_where_it_was_cut_off(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = type(served.storage)
    ping = storage.ping

    async def fails(self: Any) -> None:
        raise StorageUnavailable

    monkeypatch.setattr(storage, "ping", fails)
    status, answer = await ask(served, "POST", TENANTS, OPERATOR, {"tenantId": "acme"})
    assert (status, answer["errorCode"], answer["apiKey"]) == (503, "STORAGE_UNAVAILABLE", None)
    assert [each["status"] for each in answer["steps"]][-1] == "failed"
    monkeypatch.setattr(storage, "ping", ping)
    status, answer = await ask(served, "POST", TENANTS, OPERATOR, {"tenantId": "acme"})
    assert (status, bool(answer["apiKey"])) == (201, True)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tenantId": "acme", "limits": []},
        {"tenantId": "acme", "limits": {"images": -1}},
        {"tenantId": "acme", "limits": {"images": 1.5}},
        {"tenantId": "acme", "limits": {"images": True}},
        {"tenantId": "acme", "limits": {"pictures": 1}},
        {"tenantId": "acme", "plan": "gold"},
        [],
    ],
)
async def test_a_tenant_that_cannot_be_made(served: Web, body: Any) -> None:
    status, answer = await ask(served, "POST", TENANTS, OPERATOR, body)
    assert (status, answer["success"]) == (400, False)
    assert served.registry.tenants() == []


async def test_tenants_are_listed_in_pages(served: Web) -> None:
    for name in ("c", "a", "b"):
        await tenant_key(served, name)
    _, page = await ask(served, "GET", f"{TENANTS}?limit=2", OPERATOR)
    assert [each["tenantId"] for each in page["tenants"]] == ["a", "b"]
    _, page = await ask(served, "GET", f"{TENANTS}?limit=2&cursor={page['nextCursor']}", OPERATOR)
    assert ([each["tenantId"] for each in page["tenants"]], page["nextCursor"]) == (["c"], None)
    status, answer = await ask(served, "GET", f"{TENANTS}/a", OPERATOR)
    assert (status, answer["tenant"]["state"], answer["tenant"]["keys"]) == (200, "active", 1)
    for path in ("", "/usage", "/keys", "/check"):
        method = "POST" if path == "/check" else "GET"
        status, answer = await ask(served, method, f"{TENANTS}/nobody{path}", OPERATOR)
        assert (status, answer["errorCode"]) == (404, "TENANT_NOT_FOUND")


async def test_limits_change_one_by_one(served: Web) -> None:
    await tenant_key(served, "acme")
    for limits, expected in (
        ({"images": 7}, (7, None)),
        ({"bytes": 9}, (7, 9)),
        ({"images": None}, (None, 9)),
    ):
        body = {"limits": limits}
        status, answer = await ask(served, "PATCH", f"{TENANTS}/acme", OPERATOR, body)
        found = answer["tenant"]["limits"]
        assert (status, (found["images"], found["bytes"])) == (200, expected)


async def test_a_suspended_tenant_is_refused_until_it_is_resumed(served: Web) -> None:
    key = await tenant_key(served, "acme")
    image_id = await uploaded(served, key)
    assert (await ask(served, "POST", f"{TENANTS}/acme/suspend", OPERATOR))[0] == 200
    for path in ("/api/v1/images", f"/api/v1/images/{image_id}/content"):
        status, answer = await ask(served, "GET", path, key)
        assert (status, answer["errorCode"]) == (403, "TENANT_SUSPENDED")
    assert (await send(served, OPERATOR, picture(1), tenantId="acme"))[0] == 403
    status, answer = await ask(served, "POST", f"{TENANTS}/acme/check", OPERATOR)
    assert (status, answer["errorCode"]) == (503, "TENANT_NOT_ACTIVE")
    assert (await ask(served, "POST", f"{TENANTS}/acme/resume", OPERATOR))[0] == 200
    assert (await ask(served, "GET", "/api/v1/images", key))[0] == 200
    assert (await ask(served, "POST", f"{TENANTS}/acme/check", OPERATOR))[0] == 200


async def test_usage_is_exact_after_uploads_duplicates_and_deletions(served: Web) -> None:
    key = await tenant_key(served, "acme")
    ids = []
    for number in range(5):
        status, answer = await send(served, key, picture(number))
        assert status == 202
        ids.append(answer["imageId"])
        await served.settled()
    _, answer = await send(served, key, picture(0))
    assert answer["duplicateOf"] == ids[0]
    await ask(served, "DELETE", f"/api/v1/images/{ids[1]}", key)
    await served.settled()
    status, answer = await ask(served, "GET", "/api/v1/usage", key)
    size = len(picture(0))
    assert (status, answer["images"], answer["bytes"]) == (200, 4, 4 * size)
    _, same = await ask(served, "GET", f"{TENANTS}/acme/usage", OPERATOR)
    assert same == answer


async def test_a_quota_of_pictures_is_filled_and_not_passed(served: Web) -> None:
    key = await tenant_key(served, "acme")
    await ask(served, "PATCH", f"{TENANTS}/acme", OPERATOR, {"limits": {"images": 30}})
    answers: Counter[int] = Counter()

    async def upload(first: int) -> None:
        for number in range(first, first + 6):
            status, answer = await send(served, key, picture(number))
            answers[status] += 1
            if status == 429:
                assert answer["errorCode"] == "QUOTA_EXCEEDED"
                assert "30 pictures" in answer["message"]

    await asyncio.gather(*(upload(10 * each) for each in range(8)))
    await served.settled()
    assert answers == {202: 30, 429: 18}
    _, answer = await ask(served, "GET", "/api/v1/usage", key)
    assert answer["images"] == 30
    # What is deleted makes room.
    _, page = await ask(served, "GET", "/api/v1/images?limit=1", key)
    await ask(served, "DELETE", f"/api/v1/images/{page['images'][0]['imageId']}", key)
    await served.settled()
    served.quotas._shares["acme"].refused_until = 0.0
    assert (await send(served, key, picture(1000)))[0] == 202
    assert (await send(served, key, picture(1001)))[0] == 429


async def test_a_refused_upload_fills_nothing(served: Web) -> None:
    key = await tenant_key(served, "acme")
    await ask(served, "PATCH", f"{TENANTS}/acme", OPERATOR, {"limits": {"images": 1}})
    await served.quotas.unused(await served.quotas.upload("acme", 10))  # a lease is there
    served.broker_fault = BrokerUnavailable()
    for number in range(3):
        assert (await send(served, key, picture(number)))[0] == 503
    served.broker_fault = None
    assert (await send(served, key, picture(5)))[0] == 202
    assert (await send(served, key, picture(6)))[0] == 429


async def test_bytes_that_a_tenant_has_need_no_room(served: Web) -> None:
    """As one sends them again whose answer was lost."""
    key = await tenant_key(served, "acme")
    await ask(served, "PATCH", f"{TENANTS}/acme", OPERATOR, {"limits": {"images": 1}})
    image_id = (await send(served, key, picture(1)))[1]["imageId"]
    await served.settled()
    status, answer = await send(served, key, picture(1))
    assert (status, answer["duplicateOf"], answer["status"]) == (202, image_id, "completed")
    for number, fields in ((2, {}), (1, {"skipDuplicateCheck": "true"})):
        status, answer = await send(served, key, picture(number), **fields)
        assert (status, answer["errorCode"]) == (429, "QUOTA_EXCEEDED")
    assert len(served.published) == 1
    # One that failed is no picture to refer to.
    served.rows.held[image_id] = row_of(image_id, "failed", [], tenantId="acme")
    assert (await send(served, key, picture(1)))[0] == 429


async def test_a_quota_of_bytes(served: Web) -> None:
    key = await tenant_key(served, "acme")
    limit = 2 * len(picture(0)) + 10
    await ask(served, "PATCH", f"{TENANTS}/acme", OPERATOR, {"limits": {"bytes": limit}})
    got = [(await send(served, key, picture(number)))[0] for number in range(4)]
    assert got == [202, 202, 429, 429]


async def test_rates_of_uploads_and_searches(served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 6_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    key = await tenant_key(served, "acme")
    limits = {"uploadsPerMinute": 3, "searchesPerMinute": 2}
    await ask(served, "PATCH", f"{TENANTS}/acme", OPERATOR, {"limits": limits})
    got = [(await send(served, key, picture(number)))[0] for number in range(5)]
    assert got == [202, 202, 202, 429, 429]
    for expected in (200, 200, 429):
        form = FormData(default_to_multipart=True)
        form.add_field("queryImage", picture(0), filename="q.jpg")
        async with served.client.post(
            "/api/v1/images/search", data=form, headers={"X-API-Key": key}
        ) as response:
            assert response.status == expected
    now += 60
    status, answer = await send(served, key, picture(9))
    assert status == 202, answer


async def test_two_workers_share_a_quota_and_what_lies_idle_comes_back(served: Web) -> None:
    """A second worker asks in vain until the first gives back what it has to spare."""
    await tenant_key(served, "acme")
    await ask(served, "PATCH", f"{TENANTS}/acme", OPERATOR, {"limits": {"images": 80}})
    first, second = served.quotas, Quotas(served.settings, served.registry)
    await first.start()
    taken = [await first.upload("acme", 1)]
    held = served.registry.find("acme")
    assert held is not None
    assert [lease.images for lease in held.leases.values()] == [10]
    taken += [await second.upload("acme", 1) for _ in range(79)]
    assert len({room.lease for room in taken}) > 8
    with pytest.raises(QuotaExceeded):
        await second.upload("acme", 1)
    await first.stop()


async def test_idle_room_is_given_back(served: Web) -> None:
    await tenant_key(served, "acme")
    await ask(served, "PATCH", f"{TENANTS}/acme", OPERATOR, {"limits": {"images": 80}})
    quotas = Quotas(served.settings, served.registry, Timings(idle_s=0.1))
    async with quotas:
        await quotas.upload("acme", 1)

        def leases() -> int:
            row = served.registry.find("acme")
            assert row is not None
            return len(row.leases)

        await until(lambda: leases() == 0)
        row = served.registry.find("acme")
        assert row is not None
        assert [each.images for each in (row.filled or {}).values()] == [1]


async def test_a_lease_that_is_full_is_given_back_too(served: Web) -> None:
    await tenant_key(served, "acme")
    limits = {"images": 800, "bytes": 10_000}
    await ask(served, "PATCH", f"{TENANTS}/acme", OPERATOR, {"limits": limits})
    full = {(await served.quotas.upload("acme", 1)).lease for _ in range(10)}
    next_one = await served.quotas.upload("acme", 1)
    row = served.registry.find("acme")
    assert row is not None
    assert (len(full), set(row.leases)) == (1, {next_one.lease})
    # Nothing is counted yet, and what is filled is not free again whenever that comes.
    assert [(each.images, each.bytes) for each in (row.filled or {}).values()] == [(10, 10)]


async def test_a_lease_that_may_have_been_given_back_is_not_filled(served: Web) -> None:
    await tenant_key(served, "acme")
    await ask(served, "PATCH", f"{TENANTS}/acme", OPERATOR, {"limits": {"images": 80}})
    room = await served.quotas.upload("acme", 1)
    served.broker_fault = BrokerUnavailable()
    await served.quotas.on_stop()  # gives back what it has, and cannot say so
    served.broker_fault = None
    await served.quotas.unused(room)
    assert (await served.quotas.upload("acme", 1)).lease != room.lease
    row = served.registry.find("acme")
    assert row is not None
    assert room.lease not in row.leases
    assert (len(row.leases), row.filled or {}) == (1, {})


async def test_tenants_that_do_nothing_are_forgotten(tmp_path: Path) -> None:
    """With keys off, anybody may name any number of them."""
    limits = {"tenant_max_images": 100, "tenant_uploads_per_minute": 100}
    at_once = Timings(idle_s=0.0, forget_s=0.0)
    async with running(tmp_path, **limits) as web:
        quotas = Quotas(web.settings, web.registry, at_once)
        async with quotas:
            for number in range(100):
                await quotas.rate(f"t{number}")
                await quotas.upload(f"t{number}", 1)
            assert quotas._shares
            await until(lambda: not quotas._shares)


async def test_a_registry_that_says_nothing_is_503(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant_key(served, "acme")
    monkeypatch.setattr(registry, "PATIENCE_S", 0.1)

    async def nothing(*_messages: Any) -> None: ...

    monkeypatch.setattr(served.registry, "_publish", nothing)
    status, answer = await ask(served, "POST", f"{TENANTS}/acme/suspend", OPERATOR)
    assert (status, answer["errorCode"]) == (503, "REGISTRY_UNAVAILABLE")
    with pytest.raises(RegistryUnavailable):
        await Registry(nothing).ready()


async def test_who_is_in_line_for_room_waits_no_longer_than_who_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "PATIENCE_S", 0.2)
    async with running(tmp_path, tenant_max_images=100, tenant_uploads_per_minute=100) as web:
        asked: list[Any] = []

        async def nothing(*messages: Any) -> None:
            asked.extend(messages)

        monkeypatch.setattr(web.registry, "_publish", nothing)
        for ask_for in (lambda: web.quotas.upload("acme", 1), lambda: web.quotas.rate("acme")):
            asked.clear()
            said = await asyncio.gather(*(ask_for() for _ in range(20)), return_exceptions=True)
            assert {type(each) for each in said} == {RegistryUnavailable}
            assert len(asked) <= 2, "one after the other, each would have asked in vain"


def test_a_change_may_take_until_a_killed_workers_rows_are_with_others() -> None:
    clients = inspect.signature(Client).parameters["timeout_s"].default
    assert SESSION_TIMEOUT_S < registry.PATIENCE_S < clients / 2, "an upload may wait for two"


async def test_a_tenant_is_deleted_with_all_it_has(served: Web) -> None:
    key = await tenant_key(served, "acme")
    other = await tenant_key(served, "other")
    mine, theirs = await uploaded(served, key), await uploaded(served, other)
    await ask(served, "DELETE", f"/api/v1/images/{await uploaded(served, key, 'coffee')}", key)
    assert (await ask(served, "DELETE", f"{TENANTS}/acme", OPERATOR))[0] == 400
    row = served.registry.find("acme")
    assert row is not None
    status, answer = await ask(served, "DELETE", f"{TENANTS}/acme?confirm=acme", OPERATOR)
    assert status == 202
    purge = await served.services.tombstones.find_purge(tenant="acme")
    assert purge is not None
    assert purge.tenantCreatedAt == row.createdAt
    await until(lambda: served.registry.find("acme") is None)
    await served.settled()
    status, answer = await ask(served, "GET", f"{TENANTS}/acme/purge", OPERATOR)
    assert (status, answer["imagesLeft"], bool(answer["completedAt"])) == (200, 0, True)
    assert (await ask(served, "GET", "/api/v1/images", key))[0] == 401
    status, _ = await ask(served, "GET", f"/api/v1/images/{mine}/status", OPERATOR)
    assert status == 404
    assert (await ask(served, "GET", f"/api/v1/images/{theirs}", other))[0] == 200
    found = await obstore.list(served.blobs._store).collect_async()
    assert [each["path"] for each in found if "acme" in each["path"]] == ["purged/acme.json"]
    async with served.client.post(
        "/api/v1/admin/audit", headers={"X-API-Key": OPERATOR}
    ) as response:
        assert '"acme"' not in await response.text()


async def test_with_keys_off_a_tenant_exists_from_its_first_use(tmp_path: Path) -> None:
    async with running(tmp_path, tenant_max_images=2) as web:
        web.indexes = web.counts = True
        got = []
        for number in range(4):
            form = FormData(default_to_multipart=True)
            form.add_field("file", picture(number), filename="a.jpg")
            form.add_field("tenantId", "casual")
            async with web.client.post(UPLOAD, data=form) as response:
                got.append(response.status)
            await web.settled()
        assert got == [202, 202, 429, 429]
        async with web.client.get(f"{TENANTS}/casual/usage") as response:
            answer = await response.json()
        assert (answer["images"], answer["limits"]["images"]) == (2, 2)


async def delete(web: Web, tenant: str) -> None:
    """Have a tenant deleted, and wait until the registry has forgotten it."""
    path = f"{TENANTS}/{tenant}?confirm={tenant}"
    assert (await ask(web, "DELETE", path, OPERATOR))[0] == 202
    await until(lambda: web.registry.find(tenant) is None)


@pytest.mark.parametrize("limits", [{}, {"images": 80}])
@pytest.mark.parametrize("keys_on", [True, False])
async def test_an_upload_that_outlasts_the_purge_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys_on: bool, limits: dict[str, int]
) -> None:
    async with running(tmp_path, admin_key=OPERATOR if keys_on else None) as web:
        web.indexes = web.purges = web.counts = True
        key = await tenant_key(web, "acme")
        await ask(web, "PATCH", f"{TENANTS}/acme", OPERATOR, {"limits": limits})
        put = web.blobs.put

        async def slow(*writes: Any, action: str) -> None:
            if action == "store a picture":
                await delete(web, "acme")
            await put(*writes, action=action)

        monkeypatch.setattr(web.blobs, "put", slow)
        status, answer = await send(web, key or "", picture(1), tenantId="acme")
        assert (status, answer["errorCode"]) == (403, "TENANT_DELETING")
        await web.settled()
        found = await obstore.list(web.blobs._store).collect_async()
        assert [each["path"] for each in found if "acme" in each["path"]] == ["purged/acme.json"]
        assert [each for each in found if each["path"].startswith("index/")] == []
        assert web.published == []
        assert web.registry.find("acme") is None


async def test_an_upload_whose_tenant_went_before_it_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, admin_key=OPERATOR, tenant_max_images=80) as web:
        web.purges = True
        key = await tenant_key(web, "acme")
        upload = web.quotas.upload

        async def late(tenant: str, size: int) -> Any:
            await delete(web, "acme")
            return await upload(tenant, size)

        monkeypatch.setattr(web.quotas, "upload", late)
        status, answer = await send(web, key, picture(1))
        assert (status, answer["errorCode"]) == (404, "TENANT_NOT_FOUND")
        assert web.published == []


async def test_a_picture_is_not_confirmed_behind_the_purge_of_its_tenant(served: Web) -> None:
    await tenant_key(served, "acme")
    before = served.registry.find("acme")
    image = made_image(served.storage, tenant="acme")
    await delete(served, "acme")
    await served.acceptance._confirm(image, before)
    found = await served.claims.find(tenant="acme", checksum=image.checksumSha256)
    assert found is None


async def test_with_keys_off_use_behind_a_purge_makes_a_new_tenant(tmp_path: Path) -> None:
    async with running(tmp_path) as web:
        web.indexes = web.purges = web.counts = True
        await web.upload(picture(1), tenantId="casual")
        await web.settled()
        await delete(web, "casual")
        # Nobody had made this one, and it is refused while it is removed.
        web.purges = False
        status, _ = await ask(web, "DELETE", f"{TENANTS}/other?confirm=other", None)
        assert status == 202
        status, answer = await send(web, "", picture(1), tenantId="other")
        assert (status, answer["errorCode"]) == (403, "TENANT_DELETING")
        await web.upload(picture(1), tenantId="casual")
        await web.settled()
        row = web.registry.find("casual")
        assert row is not None
        assert (row.state, row.usage.images) == ("active", 1)


async def test_a_tenant_that_is_being_deleted_gets_no_room(served: Web) -> None:
    await tenant_key(served, "acme")
    limits = {"images": 80, "uploadsPerMinute": 10}
    await ask(served, "PATCH", f"{TENANTS}/acme", OPERATOR, {"limits": limits})
    served.purges = False
    before = served.registry.find("acme")
    assert before is not None
    assert (await ask(served, "DELETE", f"{TENANTS}/acme?confirm=acme", OPERATOR))[0] == 202
    after = served.registry.find("acme")
    served.registry._rows["acme"] = before  # as a worker has it that reads a little later
    for take in (served.quotas.upload("acme", 1), served.quotas.rate("acme")):
        with pytest.raises(TenantDeleting):
            await take
        served.registry._rows["acme"] = before
    assert after is not None
    assert (after.state, after.leases) == ("deleting", {})


async def test_a_repeated_deletion_is_another_purge_once_all_was_gone(served: Web) -> None:
    """The first worker died before it wrote down that it was done; then all began anew."""
    await tenant_key(served, "acme")
    tombstones = served.services.tombstones
    await delete(served, "acme")
    await served.settled()
    purge = await tombstones.find_purge(tenant="acme")
    assert purge is not None
    purge.completedAt = None
    await tombstones.put_purge(purge)
    await uploaded(served, await tenant_key(served, "acme"))
    await delete(served, "acme")
    await served.settled()
    assert await served.storage.tenants() == []


async def test_a_tenant_is_deleted_whose_earlier_deletion_cannot_be_read(served: Web) -> None:
    await tenant_key(served, "acme")
    await served.blobs.put(Write(object_keys.purge_key("acme"), b""), action="cut the power")
    await delete(served, "acme")
    await served.settled()
    purge = await served.services.tombstones.find_purge(tenant="acme")
    assert purge is not None
    assert purge.completedAt is not None


async def check(web: Web) -> tuple[int, dict[str, str], str | None]:
    """Return the status of an answer, that of each step, and the error code."""
    status, answer = await ask(web, "POST", f"{TENANTS}/acme/check", OPERATOR)
    return status, {each["step"]: each["status"] for each in answer["steps"]}, answer["errorCode"]


async def test_a_check_sees_a_missing_collection(served: Web) -> None:
    await tenant_key(served, "acme")
    steps = dict.fromkeys(("registry", "storage", "collections", "keys"), "completed")
    assert await check(served) == (200, steps, None)
    model = served.model.name
    status, _ = await ask(served, "DELETE", f"/api/v1/admin/collections/acme/{model}", OPERATOR)
    assert status == 200
    status, found, code = await check(served)
    assert (status, found["collections"], code) == (503, "failed", "COLLECTION_NOT_FOUND")


async def test_a_check_sees_that_no_key_works(served: Web) -> None:
    await tenant_key(served, "acme")
    _, answer = await ask(served, "GET", f"{TENANTS}/acme/keys", OPERATOR)
    await ask(served, "DELETE", f"{TENANTS}/acme/keys/{answer['keys'][0]['keyId']}", OPERATOR)
    status, found, code = await check(served)
    assert (status, found["keys"], code) == (503, "failed", "KEY_NOT_FOUND")


async def test_a_step_that_this_worker_cannot_do_is_skipped(tmp_path: Path) -> None:
    async with running(tmp_path, admin_key=OPERATOR, vectors=None) as web:
        status, answer = await ask(web, "POST", TENANTS, OPERATOR, {"tenantId": "acme"})
        assert status == 201
        (step,) = [each for each in answer["steps"] if each["step"] == "collections"]
        assert step["status"] == "skipped"
        assert "index role" in step["message"]
        status, found, _ = await check(web)
        assert (status, found["collections"]) == (200, "skipped")


async def rotate(web: Web, key_id: str, **body: int) -> tuple[int, Any]:
    return await ask(web, "POST", f"{TENANTS}/acme/keys/{key_id}/rotate", OPERATOR, body)


async def test_keys_are_rotated_any_number_of_times(served: Web) -> None:
    key_id = api_keys.key_id(await tenant_key(served, "acme")) or ""
    for _ in range(60):
        status, answer = await rotate(served, key_id, overlapSeconds=0)
        assert status == 201, answer
        key_id = answer["key"]["keyId"]
    _, answer = await ask(served, "GET", f"{TENANTS}/acme", OPERATOR)
    assert answer["tenant"]["keys"] == 1


async def test_a_key_that_ended_is_not_rotated(served: Web) -> None:
    await tenant_key(served, "acme")
    _, answer = await ask(served, "GET", f"{TENANTS}/acme/keys", OPERATOR)
    expired = answer["keys"][0]["keyId"]
    assert (await rotate(served, expired, overlapSeconds=0))[0] == 201
    _, answer = await ask(served, "POST", f"{TENANTS}/acme/keys", OPERATOR, {})
    revoked = answer["key"]["keyId"]
    await ask(served, "DELETE", f"{TENANTS}/acme/keys/{revoked}", OPERATOR)
    for key_id in (expired, revoked):
        status, answer = await rotate(served, key_id)
        assert (status, answer["errorCode"], answer["apiKey"]) == (409, "KEY_ENDED", None)
