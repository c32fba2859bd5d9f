"""One request and its answer: connections, errors, and when to ask again."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from deeplens_streams.client.errors import NotReachable, Refused, refusal
from deeplens_streams.errors import DeepLensError

Pause = Callable[[float], Awaitable[None]]
#: Gives a request its options.
Make = Callable[[ExitStack], dict[str, Any]]

_CONNECT_S: Final = 5.0
#: Attempts of one call in all, and the longest wait between two that a client believes in.
ATTEMPTS: Final = 6
_LONGEST_WAIT_S: Final = 30.0
#: Answers that say "not now".
_BUSY: Final = frozenset({429, 503})
_HEARTBEAT_S: Final = 20.0
_OK_BELOW: Final = 300


def _nothing(_opened: ExitStack) -> dict[str, Any]:
    return {}


class Http:
    """A session with one system.

    Parameters
    ----------
    api_key : sent with every request.
    timeout_s : for a whole answer.
    attempts : of a request that may be repeated.
    pause : waits between them.
    """

    def __init__(
        self, url: str, *, api_key: str | None, timeout_s: float, attempts: int, pause: Pause
    ) -> None:
        self.url = url.rstrip("/")
        if URL(self.url).scheme not in ("http", "https") or not URL(self.url).host:
            raise DeepLensError(f"{url} is no URL; it begins with http:// or https://.")
        self._headers = {"X-API-Key": api_key} if api_key else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)
        self._attempts = attempts
        self._pause = pause
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                headers=self._headers, timeout=self._timeout, trust_env=True
            )
        return self._session

    async def json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Return the object that answers a request, which is sent once."""
        async with self.answer(method, path, **options) as response:
            return await _object(response)

    async def patiently(self, method: str, path: str, make: Make = _nothing) -> dict[str, Any]:
        """Return the object that answers a request that may be repeated without harm.

        While the system is busy or away for a moment it is asked again, after as long as it
        says, else after 1, 2, 4… seconds.

        Parameters
        ----------
        make : gives each attempt its options; what it opens is closed behind the attempt.
        """
        for attempt in range(self._attempts - 1):
            wait = 2.0**attempt
            try:
                return await self._attempt(method, path, make)
            except Refused as error:
                if error.status not in _BUSY:
                    raise
                wait = wait if error.retry_after is None else error.retry_after
            except NotReachable:
                pass
            await self._pause(min(max(wait, 0.1), _LONGEST_WAIT_S))
        return await self._attempt(method, path, make)

    async def _attempt(self, method: str, path: str, make: Make) -> dict[str, Any]:
        with ExitStack() as opened:
            return await self.json(method, path, **make(opened))

    @asynccontextmanager
    async def answer(
        self, method: str, path: str, **options: Any
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Send a request; raises what it was refused with."""
        try:
            async with self._opened().request(method, self.url + path, **options) as response:
                if response.status >= _OK_BELOW:
                    body = await _object(response)
                    raise refusal(response.status, body, retry_after=_retry_after(response))
                yield response
        except TimeoutError:
            raise NotReachable(f"{self.url} does not answer in time.") from None
        except aiohttp.ClientError as error:
            raise NotReachable(
                f"Nothing answers at {self.url} ({_reason(error)}); start it with deeplens up, "
                "or name another with --url."
            ) from None

    async def socket(self, path: str, **params: str) -> aiohttp.ClientWebSocketResponse | None:
        """Return an open websocket, or None where there cannot be one."""
        try:
            async with asyncio.timeout(_CONNECT_S):
                return await self._opened().ws_connect(
                    self.url + path, params=params, heartbeat=_HEARTBEAT_S
                )
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None


async def _object(response: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        body = orjson.loads(await response.read())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise NotReachable(
            f"{response.url} answered {response.status} and not as DeepLens does; check --url."
        )
    return body


def _retry_after(response: aiohttp.ClientResponse) -> int | None:
    text = response.headers.get("Retry-After", "")
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else None


def _reason(error: Exception) -> str:
    """Return what the system says of a failed connection, without its numbers."""
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    text = getattr(error, "strerror", None) or str(error)
    return re.sub(r"^\[Errno -?\d+\] ", "", text).lower() or type(error).__name__


def given(**values: str | None) -> dict[str, str]:
    """Return the parameters that have a value."""
    return {name: value for name, value in values.items() if value is not None}
