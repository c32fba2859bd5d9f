"""What an operator asks a running system."""

from typing import Any

from tests.support.system import Client

OPERATOR = "operator-" + "y" * 40


async def admin(client: Client, method: str, path: str, body: Any = None) -> Any:
    url = f"/api/v1/admin/{path}"
    async with client.http.request(method, url, json=body) as response:
        answer = await response.json()
        assert response.status < 300, answer
        return answer
