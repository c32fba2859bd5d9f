"""Pages of other origins: none may call, but those that the setting names."""

from pathlib import Path

import pytest
from aiohttp import ClientResponse

from deeplens_streams.config import load_settings
from deeplens_streams.errors import ConfigurationError
from tests.web_server import UPLOAD, Web, running

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
