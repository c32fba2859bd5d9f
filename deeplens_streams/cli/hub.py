"""A picture's changes as the system tells them, over a websocket."""

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp

PATH = "/hub/processing-status"
_CONNECT_S = 5.0
#: How often the other side has to show that it is there.
_HEARTBEAT_S = 20.0


def changes(url: str, image_id: str) -> Iterator[dict[str, Any]]:
    """Yield the status of an image at once and at every change.

    Ends after the last one, and also where the socket cannot be had or breaks: whoever needs
    the last one has to ask for it then.
    """
    with asyncio.Runner() as runner:
        session, socket = runner.run(_session()), None
        try:
            socket = runner.run(_connect(session, url, image_id))
            while socket is not None and (status := runner.run(_next(socket))) is not None:
                yield status
        finally:
            runner.run(_close(session, socket))


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(trust_env=True)


async def _connect(
    session: aiohttp.ClientSession, url: str, image_id: str
) -> aiohttp.ClientWebSocketResponse | None:
    try:
        async with asyncio.timeout(_CONNECT_S):
            return await session.ws_connect(
                f"{url}{PATH}",
                params={"imageId": image_id},
                heartbeat=_HEARTBEAT_S,
            )
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


async def _next(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any] | None:
    try:
        status: dict[str, Any] = await socket.receive_json()
    except (aiohttp.ClientError, TypeError, ValueError, OSError):
        return None  # closed, broken, or no status
    return status


async def _close(
    session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse | None
) -> None:
    if socket is not None:
        await socket.close()
    await session.close()
