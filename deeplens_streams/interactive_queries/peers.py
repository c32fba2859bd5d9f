"""The other workers: the one client that asks them for what they hold."""

from typing import Any, Final

import aiohttp
import faust
import orjson
from yarl import URL

from deeplens_streams.config import Settings
from deeplens_streams.errors import RowMoving
from deeplens_streams.tenancy.api_keys import operator_key

#: What a worker shows another one.
INTERNAL_HEADER: Final = "X-DeepLens-Internal"
_NOT_FOUND = 404


class Peers:
    """Other workers' ``/internal`` routes, and which of the workers is this one."""

    def __init__(self, app: faust.App, settings: Settings) -> None:
        self._app = app
        self.here = URL(settings.canonical_url)
        operator = operator_key(settings)
        self._headers = {INTERNAL_HEADER: operator.internal} if operator else {}

    def is_here(self, worker: URL) -> bool:
        return (worker.host, worker.port) == (self.here.host, self.here.port)

    async def get(self, url: URL, params: dict[str, str] | None = None) -> Any:
        """Return the JSON that a worker answers, or None where it has no such row.

        Raises
        ------
        RowMoving
            It does not answer, or not with JSON; how long that may take is the caller's matter.
        """
        return await self._ask("GET", url, params=params)

    async def post(self, url: URL, body: Any) -> Any:
        """Send JSON and return what comes back; see `get`."""
        return await self._ask("POST", url, json=body)

    async def _ask(self, method: str, url: URL, **how: Any) -> Any:
        try:
            async with self._app.http_client.request(
                method, url, headers=self._headers, **how
            ) as response:
                if response.status == _NOT_FOUND:
                    return None
                response.raise_for_status()
                return orjson.loads(await response.read())
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RowMoving from error
