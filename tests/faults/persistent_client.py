"""A client that asks again when it got no answer, as clients do whose worker died."""

from collections import defaultdict
from typing import Any

import aiohttp
import orjson

from tests.support.system import FINAL, Worker, until

#: Seconds after which something is wrong, whatever happened to a worker.
PATIENCE_S = 60.0
_POLL_S = 0.1
_LETTER_STATES = ("waiting", "retried", "superseded", "discarded")
_LAG = "deeplens_consumer_lag{"


class PersistentClient:
    """Talks HTTP to one worker.

    Attributes
    ----------
    cut : tenants of which an upload was not answered, and was repeated.
    """

    def __init__(self, worker: Worker, http: aiohttp.ClientSession) -> None:
        self._worker, self._http = worker, http
        self.cut: set[str] = set()

    async def once(self, method: str, path: str, **options: Any) -> tuple[int, Any] | None:
        """Ask; return status and answer, or None if there was none."""
        assert self._worker.process is not None
        assert self._worker.process.poll() is None, self._worker.log()[-2000:]
        try:
            async with self._http.request(method, path, **options) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return None
        answer = orjson.loads(body) if response.content_type == "application/json" else body
        assert response.status < 500 or response.status == 503, (method, path, answer)
        return response.status, answer

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Ask until there is an answer that is not to be asked for again."""
        found: tuple[int, Any] | None = None

        async def is_answered() -> bool:
            nonlocal found
            found = await self.once(method, path, **options)
            return found is not None and found[0] != 503

        await until(is_answered, f"{method} {path}", seconds=PATIENCE_S, poll_s=_POLL_S)
        assert found is not None
        return found

    async def get(self, path: str) -> Any:
        return (await self.ask("GET", path))[1]

    # What clients want --------------------------------------------------------------------

    async def upload(self, tenant: str, picture: bytes) -> str:
        """Upload until that is answered, and return the image's ID."""
        found: dict[str, Any] = {}

        async def is_accepted() -> bool:
            await self.ask("GET", "/health/live")
            form = aiohttp.FormData()
            form.add_field("tenantId", tenant)
            form.add_field("file", picture, filename="picture.jpg", content_type="image/jpeg")
            answer = await self.once("POST", "/api/v1/images/upload", data=form)
            if answer is None:
                self.cut.add(tenant)
                return False
            assert answer[0] in {202, 503}, answer
            found.update(answer[1])
            return answer[0] == 202

        await until(is_accepted, f"an upload of {tenant}", seconds=PATIENCE_S, poll_s=_POLL_S)
        image_id: str = found["imageId"]
        return image_id

    async def retry(self, tenant: str) -> None:
        """Retry the tenant's only dead letter, once it is there."""
        letters: list[dict[str, Any]] = []

        async def is_there() -> bool:
            nonlocal letters
            letters = (await self.get(f"/api/v1/dead-letters?tenantId={tenant}"))["deadLetters"]
            return bool(letters)

        await until(is_there, f"a dead letter of {tenant}", seconds=PATIENCE_S, poll_s=_POLL_S)
        path = f"/api/v1/dead-letters/{letters[0]['letterId']}/retry"
        # Asked again, it may have been retried: that is an answer, too.
        await self.ask("POST", path, json={"force": True})

    async def delete(self, image_id: str) -> None:
        """Delete until nothing is left."""

        async def is_gone() -> bool:
            status, answer = await self.ask("DELETE", f"/api/v1/images/{image_id}")
            assert status in {200, 202}, answer
            return status == 200

        await until(is_gone, f"{image_id} is gone", seconds=PATIENCE_S, poll_s=_POLL_S)

    async def delete_tenant(self, tenant: str) -> None:
        """Delete a tenant until nothing is left of it."""
        path = f"/api/v1/admin/tenants/{tenant}"
        status, answer = await self.ask("DELETE", f"{path}?confirm={tenant}")
        assert status == 202, answer

        async def is_gone() -> bool:
            return (await self.get(f"{path}/purge"))["completedAt"] is not None

        await until(is_gone, f"{tenant} is gone", seconds=PATIENCE_S, poll_s=_POLL_S)

    async def until_step(self, image_id: str, step: str) -> None:
        async def is_done() -> bool:
            found = await self.get(f"/api/v1/images/{image_id}/status")
            steps = {each["step"]: each["status"] for each in found["processingSteps"]}
            return steps.get(step) == "completed"

        await until(is_done, f"{step} of {image_id}", seconds=PATIENCE_S, poll_s=_POLL_S)

    async def until_final(self, image_id: str) -> None:
        async def is_there() -> bool:
            found = await self.get(f"/api/v1/images/{image_id}/status")
            return found["status"] in FINAL

        await until(is_there, f"{image_id} is at its end", seconds=PATIENCE_S, poll_s=_POLL_S)

    # What there is ------------------------------------------------------------------------

    async def letters(self, tenant: str) -> list[str]:
        """Return the state of each dead letter."""
        found: list[str] = []
        for state in _LETTER_STATES:
            answer = await self.get(f"/api/v1/dead-letters?tenantId={tenant}&state={state}")
            found += [state] * len(answer["deadLetters"])
        return found

    async def ledger(self, tenant: str, image_id: str) -> dict[str, Any]:
        """Return everything that there is of a tenant's only picture, but times."""
        picture = f"/api/v1/images/{image_id}"
        status = await self.get(f"{picture}/status")
        collections = await self.get(f"/api/v1/admin/collections/{tenant}")
        usage = await self.get(f"/api/v1/admin/tenants/{tenant}/usage")
        return {
            "status": status["status"],
            "steps": sorted((each["step"], each["status"]) for each in status["processingSteps"]),
            "vectors": sum(each["vectorCount"] for each in collections["collections"]),
            "original": (await self.ask("GET", f"{picture}/content"))[0],
            "thumbnail": (await self.ask("GET", f"{picture}/thumbnail"))[0],
            "letters": await self.letters(tenant),
            "usage": (usage["images"], usage["bytes"], usage["errorCode"]),
        }

    async def audit(self, **query: str) -> dict[str, list[dict[str, Any]]]:
        """Return the lines of an audit by their type."""
        _, text = await self.ask("POST", "/api/v1/admin/audit", params=query)
        lines = defaultdict(list)
        for line in map(orjson.loads, text.splitlines()):
            lines[line["type"]].append(line)
        assert not lines["error"], lines["error"]
        return lines

    async def until_all_read(self) -> None:
        """Wait until the worker says that no stage has anything to read."""

        async def is_all_read() -> bool:
            _, text = await self.ask("GET", "/metrics")
            lines = [each for each in text.decode().splitlines() if each.startswith(_LAG)]
            return bool(lines) and all(float(each.split()[-1]) == 0 for each in lines)

        await until(is_all_read, "all is read", seconds=PATIENCE_S, poll_s=_POLL_S)
