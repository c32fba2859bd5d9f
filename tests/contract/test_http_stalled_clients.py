"""Clients that take nothing of what they are sent are not held, and those that are slow are."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from aiohttp.test_utils import TestServer

from deeplens_streams.web import server
from deeplens_streams.web.app_keys import DOWNLOADS, SOCKETS
from deeplens_streams.web.handlers import status_socket
from tests.support.web_server import Web, noise_jpeg, row_of, running, until

LARGE = noise_jpeg(9_900_000)

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system's kernel ends no connection"
)


@asynccontextmanager
async def asked(
    served: Web, path: str, *headers: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.Transport]]:
    """Ask for `path` as a client with little room for the answer, of which it reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", served.client.port or 0))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
    transport = cast(asyncio.Transport, writer.transport)
    transport.pause_reading()
    lines = (f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers)
    writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    try:
        yield reader, transport
    finally:
        transport.abort()
        with contextlib.suppress(ConnectionError, TimeoutError):
            await writer.wait_closed()


def connections(served: Web) -> int:
    runner = cast(TestServer, served.client.server).runner
    assert runner is not None
    assert runner.server is not None
    return len(runner.server.connections)


async def large_picture(served: Web) -> str:
    image_id: str = (await served.upload(LARGE))["imageId"]
    return f"/api/v1/images/{image_id}/content"


async def test_downloads_that_nobody_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALLED_S", 0.5)
    async with running(tmp_path, max_downloads=2) as served:
        path = await large_picture(served)
        downloads = served.client.app[DOWNLOADS]
        async with asked(served, path), asked(served, path):
            await until(lambda: downloads.taken == 2)
            async with served.client.get(path) as response:
                answer = await response.json()
            assert (response.status, answer["errorCode"]) == (429, "TOO_MANY_REQUESTS")
            assert int(response.headers["Retry-After"]) > 0
            await until(lambda: downloads.taken == 0, 20)
            # The client of the tests has one still.
            await until(lambda: connections(served) <= 1)
            async with served.client.get(path) as response:
                assert await response.read() == LARGE


async def test_a_slow_client_gets_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STALLED_S", 1.0)
    async with running(tmp_path) as served:
        path = await large_picture(served)
        async with asked(served, path) as (reader, transport):
            transport.resume_reading()
            await reader.readuntil(b"\r\n\r\n")
            got = 0
            while got < len(LARGE):
                got += len(await reader.readexactly(min(600_000, len(LARGE) - got)))
                await asyncio.sleep(0.15)  # the client's pace
        assert served.client.app[DOWNLOADS].taken == 0


async def test_a_websocket_that_nobody_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STALLED_S", 0.5)
    monkeypatch.setattr(status_socket, "_SEND_S", 0.2)
    async with running(tmp_path) as served:
        image_id = "img_11111111-1111-4111-8111-111111111111"
        served.rows.held[image_id] = row_of(image_id, "processing", [])
        handshake = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        path = f"/hub/processing-status?imageId={image_id}"
        async with asked(served, path, *handshake, key):
            await until(lambda: served.feed.watchers[image_id])
            for number in range(20):
                row = row_of(image_id, "processing", [], generation=2 + number)
                row.errorMessage = "x" * 1_000_000
                served.feed.tell(row)
            await until(lambda: not served.client.app[SOCKETS])
            # What is unsent by then does not keep the connection.
            await until(lambda: connections(served) == 0, 20)
