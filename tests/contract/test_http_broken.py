"""What is no HTTP, and bodies that are not what their headers say: answered, and hardly logged."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deeplens_streams.logs import OnceInAWhile
from deeplens_streams.web import ROUTES
from tests.support.web_server import SEARCH, UPLOAD, Web, running

#: Routes that read a body whatever else is wrong with the request.
READING = ("/api/v1/admin/tenants", "/api/v1/dead-letters/retry", UPLOAD, SEARCH)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
#: Headers and body, of which nobody can make anything.
BODIES = {
    "no gzip": (b"Content-Encoding: gzip\r\nContent-Length: 10\r\n", b"garbage123"),
    "no deflate": (b"Content-Encoding: deflate\r\nContent-Length: 10\r\n", b"garbage123"),
    "no chunk": (CHUNKED, b"ZZ\r\n{}\r\n0\r\n\r\n"),
    "no second chunk": (CHUNKED, b"2\r\n{}\r\nZZ\r\n"),
    "a chunk longer than it says": (CHUNKED, b"2\r\n{}{}\r\n0\r\n\r\n"),
}
FORM = b"Content-Type: multipart/form-data; boundary=x\r\n"
NO_HTTP = {
    "no request": b"GARBAGE<script>alert(1)</script>\r\n\r\n",
    "the first bytes of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a long header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"x" * 9000 + b"\r\n\r\n",
    "a long address": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"X-A: 1\r\n" * 200 + b"\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a header with a cursor": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: \x1b[31m\x01\r\n\r\n",
}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path) as found:
        yield found


async def answered(web: Web, sent: bytes) -> tuple[int, dict[str, str], dict[str, object]]:
    """Send bytes; return the first answer's status, headers and object."""
    reader, writer = await asyncio.open_connection("127.0.0.1", web.client.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
    finally:
        writer.close()
    return int(status.split()[1]), headers, json.loads(body)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("path", READING)
async def test_a_body_that_cannot_be_decoded_is_a_bad_request(
    served: Web, path: str, body: str
) -> None:
    headers, sent = BODIES[body]
    kind = FORM if path in (UPLOAD, SEARCH) else b""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
    status, _, answer = await answered(served, head + headers + kind + b"\r\n" + sent)
    assert (status, answer["errorCode"]) == (400, "BAD_REQUEST")
    assert str(answer["message"]).endswith(".")


async def test_no_route_fails_because_of_its_body(served: Web) -> None:
    for route in ROUTES:
        path = route.path.format(
            **dict.fromkeys(("tenant_id", "model_name", "key_id", "name", "key"), "acme"),
            image_id="img_" + "0" * 32,
            letter_id="acme.1",
            trash_id="acme.1",
        )
        headers = {"Content-Encoding": "gzip", "Connection": "close"}
        async with served.client.request(
            route.method, path, data=b"garbage", headers=headers
        ) as response:
            assert response.status < 500, (route.method, path, await response.text())


@pytest.mark.parametrize("name", NO_HTTP)
async def test_what_is_no_http_is_answered_like_the_rest(served: Web, name: str) -> None:
    status, headers, answer = await answered(served, NO_HTTP[name])
    assert (status, answer["success"], answer["errorCode"]) == (400, False, "BAD_REQUEST")
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert len(headers["x-request-id"]) == 32
    assert "script" not in str(answer)


async def test_a_client_writes_no_stack_traces(
    served: Web, caplog: pytest.LogCaptureFixture
) -> None:
    heard = OnceInAWhile()
    caplog.handler.addFilter(heard)
    with caplog.at_level(logging.INFO, "aiohttp"):
        for _ in range(3):
            for sent in NO_HTTP.values():
                await answered(served, sent)
            headers, garbage = BODIES["no gzip"]
            live = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
            await answered(served, live + headers + b"\r\n" + garbage)
    lines = [record for record in caplog.records if record.name == "aiohttp.server"]
    assert lines
    assert all(record.levelno == logging.WARNING and not record.exc_info for record in lines)
    assert len(lines) == len({record.msg for record in lines})
