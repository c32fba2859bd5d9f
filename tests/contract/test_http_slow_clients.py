"""Clients that send one byte a second keep nobody from uploading, and are dropped."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from deeplens_streams.web import reading, upload
from tests.photographs import photograph
from tests.web_server import UPLOAD, Web, running, until

HEAD = (
    f"POST {UPLOAD} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
    "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    '--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
).encode()
ROCKET = photograph("rocket").data


async def drip(served: Web) -> tuple[int, dict[str, Any]]:
    """Send one byte a second until there is an answer; return it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.client.port)
    writer.write(HEAD)
    answered = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    try:
        while not (await asyncio.wait({answered}, timeout=1))[0]:
            writer.write(b"x")
        head = answered.result().decode()
        length = int(head.lower().partition("content-length: ")[2].split()[0])
        answer: dict[str, Any] = orjson.loads(await reader.readexactly(length))
        return int(head.split()[1]), answer
    finally:
        answered.cancel()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def slow_clients(served: Web, count: int) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Have `count` slow clients send; when this begins, all of them are being read."""
    tasks = [asyncio.create_task(drip(served)) for _ in range(count)]
    under_way = served.reading._paces
    try:
        await until(lambda: len(under_way) == count)
        yield tasks
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_two_hundred_slow_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "WINDOW_S", 4.0)
    async with running(tmp_path) as served, slow_clients(served, 200) as slow:
        uploads = [served.upload(ROCKET, skipDuplicateCheck="true") for _ in range(20)]
        answers = await asyncio.gather(*uploads)
        assert len({each["imageId"] for each in answers}) == 20
        for status, answer in await asyncio.gather(*slow):
            assert (status, answer["errorCode"]) == (408, "UPLOAD_TOO_SLOW")
            assert answer.keys() == upload.BLANK.keys()
        await until(lambda: not served.spooled)
        assert not served.reading._paces


async def test_where_all_turns_are_taken_the_slowest_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "GRACE_S", 0.0)
    monkeypatch.setattr(reading, "WINDOW_S", 3600.0)
    async with running(tmp_path, max_uploads=10) as served, slow_clients(served, 10) as slow:
        await until(lambda: all(each.rate < reading.SLOW_RATE for each in served.reading._paces))
        for _ in range(3):
            await served.upload(ROCKET, skipDuplicateCheck="true")
        await until(lambda: any(each.done() for each in slow))
        (dropped,) = [each.result() for each in slow if each.done()]
        assert dropped[0] == 429
        assert dropped[1]["errorCode"] == "TOO_MANY_UPLOADS"


@pytest.mark.parametrize("setting", ["max_uploads", "max_uploads_per_address"])
async def test_who_just_began_does_not_make_room(tmp_path: Path, setting: str) -> None:
    async with running(tmp_path, **{setting: 2}) as served, slow_clients(served, 2):
        async with served.client.post(
            UPLOAD, data=b"", headers={"Content-Type": "multipart/form-data; boundary=x"}
        ) as response:
            answer = await response.json()
        assert (response.status, answer["errorCode"]) == (429, "TOO_MANY_UPLOADS")
        assert response.headers["Retry-After"]


async def test_headers_that_drip_in_end_the_connection(tmp_path: Path) -> None:
    async with running(tmp_path, idle_timeout_s=0.5) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.client.port)
        ended = asyncio.create_task(reader.read())
        for byte in HEAD:
            if (await asyncio.wait({ended}, timeout=0.1))[0]:
                break
            writer.write(bytes([byte]))
        assert await ended == b""
        writer.close()


@pytest.mark.parametrize(
    "headers",
    [{"X-Long": "x" * 9000}, {f"X-{number}": "x" for number in range(120)}],
    ids=["long", "many"],
)
async def test_headers_have_limits(tmp_path: Path, headers: dict[str, str]) -> None:
    async with running(tmp_path) as served:
        async with served.client.get("/health/live", headers=headers) as response:
            assert response.status == 400
        async with served.client.get("/health/live") as response:
            assert response.status == 200
