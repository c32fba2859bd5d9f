"""Requests with API keys, for tests of a web layer that asks for them."""

from typing import Any

from aiohttp import FormData

from tests.support.photographs import photograph
from tests.support.web_server import UPLOAD, Web

OPERATOR = "operator-" + "x" * 40


async def ask(
    web: Web, method: str, path: str, key: str | None, body: Any = None, **more: Any
) -> tuple[int, Any]:
    headers = {"X-API-Key": key} if key is not None else {}
    async with web.client.request(
        method, path, headers=headers | more.pop("headers", {}), json=body, **more
    ) as response:
        is_json = response.content_type == "application/json"
        return response.status, await response.json() if is_json else await response.read()


async def tenant_key(web: Web, tenant: str, *scopes: str) -> str:
    status, answer = await ask(web, "POST", "/api/v1/admin/tenants", OPERATOR, {"tenantId": tenant})
    assert status in (201, 409), answer
    if status == 201 and not scopes:
        key: str = answer["apiKey"]
        return key
    status, answer = await ask(
        web,
        "POST",
        f"/api/v1/admin/tenants/{tenant}/keys",
        OPERATOR,
        {"scopes": list(scopes)} if scopes else {},
    )
    assert status == 201, answer
    found: str = answer["apiKey"]
    return found


async def uploaded(web: Web, key: str, picture: str = "rocket", **fields: str) -> str:
    form = FormData(quote_fields=False)
    form.add_field("file", photograph(picture).data, filename="a.jpg")
    for name, value in fields.items():
        form.add_field(name, value)
    async with web.client.post(UPLOAD, data=form, headers={"X-API-Key": key}) as response:
        answer = await response.json()
        assert response.status == 202, answer
        image_id: str = answer["imageId"]
    await web.settled()
    return image_id
