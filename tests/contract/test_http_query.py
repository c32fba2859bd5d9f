"""What a query may not say: two things at once, or nobody where somebody is meant."""

from pathlib import Path

import pytest

from tests.support.web_server import running

TWICE = "tenantId=acme-corp&tenantId=demo"
LETTERS = "/api/v1/dead-letters"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/api/v1/images?{TWICE}"),
        ("GET", f"{LETTERS}?{TWICE}"),
        ("GET", "/health/ready?only=broker&only=storage"),
        ("GET", f"{LETTERS}?tenantId="),
        ("POST", "/api/v1/admin/audit?tenantId="),
        ("POST", "/api/v1/admin/audit?tenantId=demo&repair="),
        ("GET", "/tables/image_status?after="),
    ],
)
async def test_is_refused(tmp_path: Path, method: str, path: str) -> None:
    async with running(tmp_path) as served, served.client.request(method, path) as response:
        assert response.status == 400
        assert (await response.json())["success"] is False


@pytest.mark.parametrize(
    "body", [{"ids": [], "tenantId": {}}, {"ids": [], "state": "x"}, {"ids": [], "cursor": 1}]
)
async def test_what_stands_beside_ids_is_checked(tmp_path: Path, body: dict[str, object]) -> None:
    async with (
        running(tmp_path) as served,
        served.client.post(f"{LETTERS}/retry", json=body) as response,
    ):
        assert response.status == 400
