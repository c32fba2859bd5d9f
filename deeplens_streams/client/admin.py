"""The client's calls for operators."""

from collections.abc import AsyncGenerator

import aiohttp
import orjson

from deeplens_streams.client import models
from deeplens_streams.client.errors import NotReachable, NotReady
from deeplens_streams.client.http import Http, given


class OperatorCalls:
    """Part of `Client`."""

    _http: Http

    async def audit(
        self,
        *,
        tenant: str | None = None,
        repair: bool = False,
        checksums: bool = False,
        outdated: bool = False,
    ) -> AsyncGenerator[models.Raw]:
        """Yield the lines of an audit as they come, those that say how far it is among them.

        Parameters
        ----------
        repair : mend what can be mended.
        checksums : read every original and compare its SHA-256.
        outdated : find what an older preprocessing made, too.
        """
        params = given(
            tenantId=tenant,
            repair=str(repair).lower(),
            checksums="true" if checksums else None,
            outdated="true" if outdated else None,
        )
        try:
            async with self._http.answer(
                "POST",
                "/api/v1/admin/audit",
                params=params,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response:
                async for line in response.content:
                    yield orjson.loads(line)
        except orjson.JSONDecodeError:
            raise NotReachable("The audit was cut off; try again.") from None

    async def readiness(self) -> models.Readiness | None:
        """Return the checks, or None where nothing answers."""
        try:
            raw = await self._http.json(
                "GET", "/health/ready", timeout=aiohttp.ClientTimeout(total=5)
            )
        except NotReady as error:
            raw = dict(error.raw)
        except NotReachable:
            return None
        return models.Readiness.read(raw)

    async def require(self) -> None:
        """Raise `NotReachable` if nothing answers; whether it is ready does not matter."""
        await self._http.json("GET", "/health/live")
