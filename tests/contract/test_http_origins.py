"""Pages of other origins: none may call, but those that the setting names."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import ClientResponse, FormData, WSServerHandshakeError

from deeplens_streams.config import load_settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.web import HEALTH_ROUTES, ROUTES
from tests.support.api_keys import OPERATOR, tenant_key
from tests.support.photographs import photograph
from tests.support.route_paths import filled
from tests.support.web_server import TENANT, UPLOAD, Web, running

SHOP, OTHER = "https://shop.example", "https://shop.example.evil.example"
LISTING = "/api/v1/images?tenantId=demo"


async def preflight(served: Web, origin: str, path: str = UPLOAD) -> ClientResponse:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with served.client.options(path, headers=headers) as response:
        return response


def granted(response: ClientResponse) -> list[str]:
    return [name for name in response.headers if name.startswith("Access-Control-")]


async def test_no_origin_by_default(tmp_path: Path) -> None:
    async with running(tmp_path) as served:
        response = await preflight(served, SHOP)
        assert response.status == 405
        assert not granted(response)
        async with served.client.get(LISTING, headers={"Origin": SHOP}) as response:
            assert response.status == 200
            assert not granted(response)


async def test_an_origin_that_is_named(tmp_path: Path) -> None:
    async with running(tmp_path, cors_origins=f"{SHOP}, http://localhost:3000") as served:
        response = await preflight(served, SHOP)
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == SHOP
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert "X-API-Key" in response.headers["Access-Control-Allow-Headers"]
        assert response.headers["Vary"] == "Origin"
        for path, status in ((LISTING, 200), ("/api/v1/images?tenantId=A", 400)):
            async with served.client.get(path, headers={"Origin": SHOP}) as response:
                assert response.status == status
                assert response.headers["Access-Control-Allow-Origin"] == SHOP
                assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("origin", [OTHER, "null", "http://shop.example", f"{SHOP}:444", ""])
async def test_every_other_origin(tmp_path: Path, origin: str) -> None:
    async with running(tmp_path, cors_origins=SHOP) as served:
        response = await preflight(served, origin)
        assert response.status == 405
        assert not granted(response)
        async with served.client.get(LISTING, headers={"Origin": origin}) as response:
            assert not granted(response)
            assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize("path", ["/internal/rows", "/tables/image_status", "/metrics", "/"])
async def test_only_the_interface_is_shared(tmp_path: Path, path: str) -> None:
    async with running(tmp_path, cors_origins=SHOP) as served:
        assert not granted(await preflight(served, SHOP, path))
        async with served.client.get(path, headers={"Origin": SHOP}) as response:
            assert not granted(response)


@pytest.mark.parametrize(
    "value",
    ["*", "null", "shop.example", f"{SHOP}/", "ftp://shop.example", "https://", "https://a@b"],
)
def test_only_exact_origins_can_be_set(value: str) -> None:
    with pytest.raises(ConfigurationError, match="DEEPLENS_CORS_ORIGINS"):
        load_settings(cors_origins=value)


# Where keys are off, a browser lets whoever is visited in -----------------------------------------

TENANTS = "/api/v1/admin/tenants"
EVIL = "http://evil.example"
#: As any page may send it, without asking before.
PLAIN = {"Content-Type": "text/plain"}
BODY = b'{"tenantId": "acme"}'


async def asked(served: Web, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with served.client.request(method, path, **options) as response:
        is_json = response.content_type == "application/json"
        return response.status, await response.json() if is_json else None


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8080", "LocalHost:1", "127.0.0.1", "127.8.9.10:80", "[::1]:8080"),
        *("worker-1.example:9000", "worker-1.example"),
    ],
)
async def test_a_host_that_is_this_one(tmp_path: Path, host: str) -> None:
    async with running(tmp_path, advertised_url="http://worker-1.example:9000") as served:
        for path in (LISTING, "/", "/docs"):
            assert (await asked(served, "GET", path, headers={"Host": host}))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example"),
        *("10.0.0.1", "0.0.0.0:8080", "[::1", "[fe80::1]", "", "shop.example"),
    ],
)
async def test_a_host_that_a_stranger_s_name_server_says_is_here(tmp_path: Path, host: str) -> None:
    async with running(tmp_path, cors_origins=SHOP) as served:
        image_id = (await served.upload(photograph("rocket").data))["imageId"]
        headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        for route in [each for each in ROUTES if each not in HEALTH_ROUTES]:
            path = filled(route.path.replace("{image_id}", image_id))
            status, answer = await asked(served, route.method, path, headers=headers)
            assert (status, answer["errorCode"]) == (421, "HOST_REFUSED"), path
            assert "DEEPLENS_ADVERTISED_URL" in answer["message"]
            assert answer.keys() == route.answer.blank().keys()
        assert (await asked(served, "GET", f"/api/v1/images/{image_id}"))[0] == 200


async def test_a_request_that_names_no_host(tmp_path: Path) -> None:
    async with running(tmp_path) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.client.port)
        writer.write(f"GET {LISTING} HTTP/1.0\r\n\r\n".encode())
        assert b" 200 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
async def test_probes_call_a_process_by_any_name(tmp_path: Path, path: str) -> None:
    async with running(tmp_path) as served:
        assert (await asked(served, "GET", path, headers={"Host": "10.1.2.3:8080"}))[0] == 200


async def test_who_listens_everywhere_has_any_name_and_yet_no_foreign_pages(tmp_path: Path) -> None:
    async with running(tmp_path, web_host="0.0.0.0", insecure=True) as served:
        headers = {"Host": "shop.example:8080"}
        assert (await asked(served, "GET", LISTING, headers=headers))[0] == 200
        own = {**headers, "Origin": "http://shop.example:8080"}
        assert (await asked(served, "POST", TENANTS, data=BODY, headers=own))[0] == 201
        foreign = {**headers, "Origin": EVIL}
        assert (await asked(served, "POST", TENANTS, data=BODY, headers=foreign))[0] == 403


async def test_who_listens_at_one_address_is_called_by_it(tmp_path: Path) -> None:
    async with running(tmp_path, web_host="192.0.2.7", insecure=True) as served:
        for host, expected in (("192.0.2.7:8080", 200), ("192.0.2.8:8080", 421)):
            assert (await asked(served, "GET", LISTING, headers={"Host": host}))[0] == expected


FOREIGN = [
    {"Origin": EVIL},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_a_page_of_another_origin_changes_nothing(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with running(tmp_path, cors_origins=SHOP) as served:
        image_id = (await served.upload(photograph("rocket").data))["imageId"]
        for method, path in [
            *(
                ("POST", TENANTS),
                ("DELETE", f"/api/v1/images/{image_id}"),
                ("POST", "/internal/rows"),
            )
        ]:
            status, answer = await asked(
                served, method, path, data=BODY, headers={**PLAIN, **headers}
            )
            assert (status, answer["errorCode"]) == (403, "ORIGIN_REFUSED")
            assert "DEEPLENS_CORS_ORIGINS" in answer["message"]
        form = FormData({"tenantId": TENANT}, default_to_multipart=True)
        form.add_field("file", photograph("coffee").data, filename="a.jpg")
        assert (await asked(served, "POST", UPLOAD, data=form, headers=headers))[0] == 403
        assert served.registry.tenants() == []
        assert len(served.published) == 1
        assert (await asked(served, "GET", f"/api/v1/images/{image_id}", headers=headers))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:{port}"},
        {"Origin": "https://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"},
        # A proxy that tells its own name for the host.
        {"Origin": "https://pictures.example", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": SHOP, "Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
async def test_programs_own_pages_and_named_origins_change_what_they_like(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with running(tmp_path, cors_origins=SHOP) as served:
        sent = {name: each.format(port=served.client.port) for name, each in headers.items()}
        assert (await asked(served, "POST", TENANTS, data=BODY, headers=sent))[0] == 201
        path = (await served.upload(photograph("rocket").data))["webSocketUrl"]
        async with served.client.ws_connect(path, headers=sent) as socket:
            assert (await socket.receive_json(timeout=5))["status"] == "uploaded"


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_a_page_of_another_origin_opens_no_websocket(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with running(tmp_path) as served:
        path = (await served.upload(photograph("rocket").data))["webSocketUrl"]
        with pytest.raises(WSServerHandshakeError) as refused:
            await served.client.ws_connect(path, headers=headers)
        assert refused.value.status == 403


async def test_where_keys_are_on_they_are_all_that_counts(tmp_path: Path) -> None:
    async with running(tmp_path, admin_key=OPERATOR) as served:
        key = await tenant_key(served, "other")
        headers = {"Host": "evil.example", "Origin": EVIL, "Sec-Fetch-Site": "cross-site"}
        assert (await asked(served, "POST", TENANTS, data=BODY, headers=headers))[0] == 401
        headers["X-API-Key"] = OPERATOR
        assert (await asked(served, "POST", TENANTS, data=BODY, headers=headers))[0] == 201
        headers["X-API-Key"] = key
        assert (await asked(served, "GET", "/api/v1/images", headers=headers))[0] == 200


async def test_a_refusal_tells_a_page_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, cors_origins=SHOP) as served:
        headers = {"Host": "evil.example", "Origin": EVIL}
        async with served.client.get(LISTING, headers=headers) as response:
            assert not granted(response)
            assert orjson.loads(await response.read())["images"] == []
