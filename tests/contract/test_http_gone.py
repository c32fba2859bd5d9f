"""Clients that go away in the middle: nothing is kept of them, and the log has no error."""

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.photographs import photograph
from tests.support.web_server import SEARCH, UPLOAD, Web, running, until

ROCKET = photograph("rocket").data
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    + ROCKET[:20_000]
)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path) as found:
        yield found


async def leave(writer: asyncio.StreamWriter, *, at_once: bool) -> None:
    """Close a connection, in order or by a reset."""
    if at_once:
        found: socket.socket = writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("at_once", [False, True], ids=["in order", "by a reset"])
@pytest.mark.parametrize("sent", [0, 200, len(FORM)])
@pytest.mark.parametrize("path", [UPLOAD, SEARCH])
async def test_in_a_body(
    served: Web, path: str, sent: int, at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _, writer = await asyncio.open_connection("127.0.0.1", served.client.port)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n"
    writer.write(head.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n")
    writer.write(FORM[:sent])
    await until(lambda: len(served.body_rate.bodies) == 1)
    await leave(writer, at_once=at_once)
    await until(lambda: not served.body_rate.bodies and not served.spooled)
    # What is answered now is answered behind it.
    assert (await served.upload(ROCKET))["success"]
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []
    assert served.published[0].data.fileSize == len(ROCKET)


async def test_in_an_answer(served: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    large = ROCKET + bytes(9_000_000)
    image_id = (await served.upload(large))["imageId"]
    reader, writer = await asyncio.open_connection("127.0.0.1", served.client.port)
    writer.write(
        f"GET /api/v1/images/{image_id}/content HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    )
    assert await reader.readexactly(4) == b"HTTP"
    await leave(writer, at_once=True)
    async with served.client.get(f"/api/v1/images/{image_id}/content") as response:
        assert len(await response.read()) == len(large)
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []
