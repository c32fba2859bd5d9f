"""Keys, scopes and tenants: every route, by walking all of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import FormData, WSMsgType
from aiohttp.web_urldispatcher import SystemRoute

from deeplens_streams.config import load_settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.interactive_queries.peers import INTERNAL_HEADER
from deeplens_streams.tenancy import api_keys
from deeplens_streams.tenancy.api_keys import operator_key
from deeplens_streams.web import ROUTES
from deeplens_streams.web.handlers import status_socket
from deeplens_streams.web.middleware import key_guesses
from deeplens_streams.web.middleware.auth import INTERNAL
from deeplens_streams.web.middleware.key_guesses import FAILURES_S, MAX_FAILURES
from models.tenants import Scope
from tests.support.api_keys import OPERATOR, ask, tenant_key, uploaded
from tests.support.photographs import photograph
from tests.support.route_paths import filled
from tests.support.web_server import SEARCH, TENANT, UPLOAD, Web, row_of, running

#: What anybody may ask for: nothing in it is a tenant's or an operator's.
OPEN = {
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/static/{name}"),
    ("GET", "/openapi.json"),
    ("GET", "/asyncapi.json"),
    ("GET", "/docs"),
    ("GET", "/"),
}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path, admin_key=OPERATOR) as web:
        web.indexes = True
        yield web


async def test_every_route_needs_a_key_but_those_that_are_open(served: Web) -> None:
    routes = served.application().router.routes()
    walked = set()
    for route in routes:
        assert not isinstance(route, SystemRoute)
        assert route.resource is not None
        place = (route.method, route.resource.canonical)
        walked.add(place)
        if place in OPEN or (route.method == "HEAD" and ("GET", place[1]) in OPEN):
            continue
        if place[1].startswith("/hub/"):
            continue  # closes with 4401, see below
        status, answer = await ask(served, route.method, filled(place[1]), None)
        assert status == 401, place
        if route.method != "HEAD":
            assert answer["errorCode"] == "API_KEY_REQUIRED", place
            assert answer["success"] is False
    assert len(walked) >= len(ROUTES)
    assert {(each.method, each.path) for each in ROUTES if each.scope is None} == OPEN


async def test_every_route_needs_its_own_scope(served: Web) -> None:
    keys = {
        scope.value: await tenant_key(served, "acme", scope.value)
        for scope in Scope
        if scope is not Scope.ADMIN
    }
    for route in ROUTES:
        if route.scope is None or route.path.startswith("/hub/"):
            continue
        for scope, key in keys.items():
            status, answer = await ask(served, route.method, filled(route.path), key)
            if scope != route.scope:
                expected = 401 if route.scope == INTERNAL else 403
                assert status == expected, (route.path, scope, answer)
            else:
                assert status not in (401, 403), (route.path, scope, answer)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        "dlk_000000000000_" + "a" * 43,
        "dlk_' OR 1=1",
        "é" * 40,
        OPERATOR[:-1],
        OPERATOR + "x",
        "a" * 5000,
    ],
)
async def test_wrong_keys(served: Web, key: str) -> None:
    for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
        async with served.client.get("/api/v1/images?tenantId=acme", headers=headers) as response:
            answer = await response.json()
            assert response.status == 401
            assert answer["errorCode"] in {"INVALID_API_KEY", "API_KEY_REQUIRED"}
            assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_key_works_in_both_headers(served: Web) -> None:
    key = await tenant_key(served, "acme")
    for headers in ({"X-API-Key": key}, {"Authorization": f"bearer  {key} "}):
        async with served.client.get("/api/v1/images", headers=headers) as response:
            assert response.status == 200


async def test_a_key_carries_its_tenant(served: Web) -> None:
    key = await tenant_key(served, "acme")
    await tenant_key(served, "other")
    image_id = await uploaded(served, key)
    assert await uploaded(served, key, "coffee", tenantId="acme")
    status, answer = await ask(served, "GET", f"/api/v1/images/{image_id}", key)
    assert (status, answer["tenantId"]) == (200, "acme")
    for tenant, expected in (("other", 403), ("Acme", 400), ("", 400)):
        form = FormData()
        form.add_field("tenantId", tenant or "a..b")
        form.add_field("file", photograph("rocket").data, filename="a.jpg")
        async with served.client.post(UPLOAD, data=form, headers={"X-API-Key": key}) as response:
            assert response.status == expected


def picture_form(field: str, **fields: str) -> FormData:
    form = FormData(fields, default_to_multipart=True)
    form.add_field(field, photograph("rocket").data, filename="a.jpg")
    return form


@pytest.mark.parametrize(("path", "field"), [(UPLOAD, "file"), (SEARCH, "queryImage")])
@pytest.mark.parametrize("fields", [{}, {"tenantId": "acme"}], ids=["query", "form and query"])
async def test_another_tenant_in_the_query_of_a_form(
    served: Web, path: str, field: str, fields: dict[str, str]
) -> None:
    key = await tenant_key(served, "acme")
    await tenant_key(served, "other")
    for query, expected in (
        *(("tenantId=acme", (None, {200, 202})), ("tenantId=other", ("WRONG_TENANT", {403}))),
        ("tenantId=Acme", ("INVALID_TENANT_ID", {400})),
    ):
        async with served.client.post(
            f"{path}?{query}", data=picture_form(field, **fields), headers={"X-API-Key": key}
        ) as response:
            assert response.status in expected[1]
            assert (await response.json())["errorCode"] == expected[0]


@pytest.mark.parametrize(("path", "field"), [(UPLOAD, "file"), (SEARCH, "queryImage")])
async def test_two_tenants_in_one_request_without_keys(
    tmp_path: Path, path: str, field: str
) -> None:
    async with running(tmp_path) as web:
        for tenant, statuses in ((TENANT, {200, 202}), ("other", {400})):
            form = picture_form(field, tenantId=TENANT)
            async with web.client.post(f"{path}?tenantId={tenant}", data=form) as response:
                assert response.status in statuses
        assert len(web.published) == (path == UPLOAD)


async def test_an_unknown_tenant_is_refused(served: Web) -> None:
    form = FormData()
    form.add_field("tenantId", "nobody")
    form.add_field("file", photograph("rocket").data, filename="a.jpg")
    async with served.client.post(UPLOAD, data=form, headers={"X-API-Key": OPERATOR}) as response:
        answer = await response.json()
    assert (response.status, answer["errorCode"]) == (404, "TENANT_NOT_FOUND")
    status, _ = await ask(served, "GET", "/api/v1/images?tenantId=nobody", OPERATOR)
    assert status == 404


async def test_keys_expire_are_rotated_and_revoked(served: Web) -> None:
    first = await tenant_key(served, "acme")
    path = "/api/v1/admin/tenants/acme/keys"
    _, answer = await ask(served, "GET", path, OPERATOR)
    (known,) = answer["keys"]
    assert known["keyId"] == api_keys.key_id(first)
    assert "sha256" not in known
    assert first not in str(answer)
    status, answer = await ask(served, "POST", f"{path}/{known['keyId']}/rotate", OPERATOR, {})
    assert status == 201
    second = answer["apiKey"]
    for key in (first, second):  # both work while they overlap
        assert (await ask(served, "GET", "/api/v1/images", key))[0] == 200
    status, _ = await ask(
        served, "POST", f"{path}/{known['keyId']}/rotate", OPERATOR, {"overlapSeconds": 0}
    )
    assert status == 201
    status, answer = await ask(served, "GET", "/api/v1/images", first)
    assert (status, "expired" in answer["message"]) == (401, True)
    second_id = api_keys.key_id(second)
    status, answer = await ask(served, "DELETE", f"{path}/{second_id}", OPERATOR)
    assert (status, answer["key"]["revokedAt"] is not None) == (200, True)
    assert (await ask(served, "GET", "/api/v1/images", second))[0] == 401
    assert (await ask(served, "DELETE", f"{path}/dlk_000000000000", OPERATOR))[0] == 404


async def test_the_use_of_a_key_is_written_down(served: Web) -> None:
    key = await tenant_key(served, "acme")
    await ask(served, "GET", "/api/v1/images", key)
    await served.registry.write_uses()
    _, answer = await ask(served, "GET", "/api/v1/admin/tenants/acme/keys", OPERATOR)
    assert answer["keys"][0]["lastUsedAt"].endswith(":00.000Z")


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": ["admin"]},
        {"scopes": []},
        {"scopes": "read"},
        {"scopes": ["fly"]},
        {"expiresAt": "yesterday"},
        {"expiresAt": "2020-01-01T00:00:00Z"},
        {"name": "a\nb"},
        {"name": "a" * 101},
        {"nmae": "slip"},
        [1],
    ],
)
async def test_a_key_that_cannot_be_made(served: Web, body: Any) -> None:
    await tenant_key(served, "acme")
    status, answer = await ask(served, "POST", "/api/v1/admin/tenants/acme/keys", OPERATOR, body)
    assert (status, answer["errorCode"]) == (400, "BAD_REQUEST")
    _, answer = await ask(served, "GET", "/api/v1/admin/tenants/acme/keys", OPERATOR)
    assert len(answer["keys"]) == 1


async def test_operators_can_have_keys_of_their_own(served: Web) -> None:
    status, answer = await ask(
        served, "POST", "/api/v1/admin/keys", OPERATOR, {"name": "night shift"}
    )
    assert status == 201
    key = answer["apiKey"]
    assert (await ask(served, "GET", "/api/v1/admin/tenants", key))[0] == 200
    assert (await ask(served, "GET", "/metrics", key))[0] == 200
    _, answer = await ask(served, "GET", "/api/v1/admin/tenants", key)
    assert answer["tenants"] == [], "what holds the operators' keys is no tenant"
    _, answer = await ask(
        served, "POST", "/api/v1/admin/keys", OPERATOR, {"scopes": ["read", "search"]}
    )
    assert (await ask(served, "GET", "/api/v1/admin/tenants", answer["apiKey"]))[0] == 403


async def test_many_wrong_keys_are_told_to_stop_and_lock_nobody_out(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a proxy a stranger has the address of everybody else."""
    now = 1000.0
    monkeypatch.setattr(key_guesses, "time", SimpleNamespace(monotonic=lambda: now))
    key = await tenant_key(served, "acme")
    for _ in range(MAX_FAILURES):
        assert (await ask(served, "GET", "/api/v1/images", "wrong"))[0] == 401
    for wrong in ("wrong", f"{api_keys.key_id(key)}_{'a' * 43}"):
        async with served.client.get("/api/v1/images", headers={"X-API-Key": wrong}) as response:
            assert response.status == 429
            assert 0 < int(response.headers["Retry-After"]) <= 61
            assert (await response.json())["errorCode"] == "TOO_MANY_FAILURES"
    for right in (key, OPERATOR):  # the tenant's was never seen before
        assert (await ask(served, "GET", "/api/v1/images?tenantId=acme", right))[0] == 200
    now += FAILURES_S
    assert (await ask(served, "GET", "/api/v1/images", "wrong"))[0] == 401


async def test_what_workers_ask_each_other_is_not_for_operators(served: Web) -> None:
    body: dict[str, list[str]] = {"ids": []}
    assert (await ask(served, "POST", "/internal/rows", OPERATOR, body))[0] == 401
    operator = operator_key(served.settings)
    assert operator is not None
    headers = {INTERNAL_HEADER: operator.internal}
    assert (await ask(served, "POST", "/internal/rows", None, body, headers=headers))[0] == 200


async def socket_end(web: Web, path: str, **options: Any) -> tuple[list[Any], int | None]:
    """Return what a websocket says and how it closes."""
    async with web.client.ws_connect(path, **options) as socket:
        said = [each.json() async for each in socket if each.type is WSMsgType.TEXT]
        return said, socket.close_code


async def test_the_websocket_asks_for_a_key_too(served: Web) -> None:
    key = await tenant_key(served, "acme")
    other = await tenant_key(served, "other")
    searcher = await tenant_key(served, "acme", "search")
    image_id = await uploaded(served, key)
    path = f"/hub/processing-status?imageId={image_id}"
    assert await socket_end(served, path) == ([], 4401)
    assert await socket_end(served, path, headers={"X-API-Key": "wrong"}) == ([], 4401)
    assert await socket_end(served, path, headers={"X-API-Key": searcher}) == ([], 4403)
    assert await socket_end(served, path, headers={"X-API-Key": other}) == ([], 4404)
    foreign = f"{path}&tenantId=acme"
    assert await socket_end(served, foreign, headers={"X-API-Key": other}) == ([], 4403)
    # A browser cannot set headers: there the key is an offered protocol.
    protocols = ("deeplens", f"deeplens.key.{key}")
    said, code = await socket_end(served, path, protocols=protocols)
    assert ([each["status"] for each in said], code) == (["completed"], 1000)


@pytest.mark.parametrize("looks", [True, False], ids=["at a look", "at a change"])
@pytest.mark.parametrize(("ending", "code"), [("suspend", 4403), ("revoke", 4401)])
async def test_an_open_websocket_ends_with_what_let_it_in(
    served: Web, monkeypatch: pytest.MonkeyPatch, ending: str, code: int, *, looks: bool
) -> None:
    monkeypatch.setattr(status_socket, "_POLL_S", 0.05 if looks else 3600.0)
    key = await tenant_key(served, "acme")
    image_id = await uploaded(served, key)
    done, path = served.rows.held[image_id], "/api/v1/admin/tenants/acme"
    served.rows.held[image_id] = row_of(image_id, "processing", [], tenantId="acme")
    url = f"/hub/processing-status?imageId={image_id}"
    async with served.client.ws_connect(url, headers={"X-API-Key": key}) as socket:
        assert (await socket.receive_json(timeout=5))["status"] == "processing"
        if ending == "suspend":
            assert (await ask(served, "POST", f"{path}/suspend", OPERATOR))[0] == 200
        else:
            key_id = api_keys.key_id(key)
            assert (await ask(served, "DELETE", f"{path}/keys/{key_id}", OPERATOR))[0] == 200
        if not looks:
            served.feed.tell(done)
        message = await socket.receive(timeout=5)
        assert (message.type, message.data) == (WSMsgType.CLOSE, code)
        assert message.extra


async def test_what_operators_do_is_written_down(served: Web) -> None:
    await tenant_key(served, "acme")
    await ask(served, "POST", "/api/v1/admin/tenants/acme/suspend", OPERATOR)
    await ask(served, "POST", "/api/v1/admin/tenants/nobody/suspend", OPERATOR)
    status, answer = await ask(served, "GET", "/api/v1/admin/log?limit=2", OPERATOR)
    assert status == 200
    said = [(each["action"], each["path"], each["status"]) for each in answer["actions"]]
    action = "POST /api/v1/admin/tenants/{tenant_id}/suspend"
    assert said == [
        (action, "/api/v1/admin/tenants/nobody/suspend", 404),
        (action, "/api/v1/admin/tenants/acme/suspend", 200),
    ]
    assert {each["keyId"] for each in answer["actions"]} == {"operator"}
    path = f"/api/v1/admin/log?cursor={answer['nextCursor']}"
    _, answer = await ask(served, "GET", path, OPERATOR)
    assert [each["action"] for each in answer["actions"]] == ["POST /api/v1/admin/tenants"]
    assert (await ask(served, "GET", "/api/v1/admin/log?cursor=../x", OPERATOR))[0] == 400


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"web_host": "0.0.0.0"}, "DEEPLENS_ADMIN_KEY"),
        ({"web_host": "example.org"}, "DEEPLENS_INSECURE"),
        ({"admin_key": "short"}, "32 characters"),
        ({"admin_key": "with blank " * 5}, "without blanks"),
    ],
)
def test_a_start_that_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        operator_key(load_settings(**values))


def test_starts_that_are_not() -> None:
    assert operator_key(load_settings()) is None
    assert operator_key(load_settings(web_host="0.0.0.0", insecure=True)) is None
    found = operator_key(load_settings(web_host="0.0.0.0", admin_key=OPERATOR))
    assert found is not None
    assert OPERATOR not in repr(found)
