"""Clients that send one byte a second keep nobody from uploading, and are dropped."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import FormData

from deeplens_streams.client import models
from deeplens_streams.ingest import body_rate
from deeplens_streams.ingest.acceptance import UploadAcceptance
from deeplens_streams.web.forms import json_body
from tests.support.photographs import photograph
from tests.support.web_server import TENANT, UPLOAD, Web, running, until

HEAD = (
    f"POST {UPLOAD} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n"
    "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    '--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
).encode()
ROCKET = photograph("rocket").data


async def drip(
    served: Web, head: bytes = HEAD, *, every: float = 1.0
) -> tuple[int, dict[str, Any]]:
    """Send one byte a second, or more often, until there is an answer; return it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.client.port)
    writer.write(head)
    answered = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    try:
        while not (await asyncio.wait({answered}, timeout=every))[0]:
            writer.write(b"x")
        said = answered.result().decode()
        length = int(said.lower().partition("content-length: ")[2].split()[0])
        answer: dict[str, Any] = orjson.loads(await reader.readexactly(length))
        return int(said.split()[1]), answer
    finally:
        answered.cancel()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def slow_clients(served: Web, count: int) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Have `count` slow clients send; when this begins, all of them are being read."""
    tasks = [asyncio.create_task(drip(served)) for _ in range(count)]
    under_way = served.body_rate.bodies
    try:
        await until(lambda: len(under_way) == count)
        yield tasks
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_two_hundred_slow_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_rate, "WINDOW_S", 4.0)
    async with running(tmp_path) as served, slow_clients(served, 200) as slow:
        uploads = [served.upload(ROCKET, skipDuplicateCheck="true") for _ in range(20)]
        answers = await asyncio.gather(*uploads)
        assert len({each["imageId"] for each in answers}) == 20
        for status, answer in await asyncio.gather(*slow):
            assert (status, answer["errorCode"]) == (408, "UPLOAD_TOO_SLOW")
            assert answer.keys() == models.Upload.blank().keys()
        await until(lambda: not served.spooled)
        assert not served.body_rate.bodies


async def test_where_all_turns_are_taken_the_slowest_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_rate, "GRACE_S", 0.0)
    monkeypatch.setattr(body_rate, "WINDOW_S", 3600.0)
    async with running(tmp_path, max_uploads=10) as served, slow_clients(served, 10) as slow:
        await until(
            lambda: all(each.rate < body_rate.SLOW_RATE for each in served.body_rate.bodies)
        )
        for _ in range(3):
            await served.upload(ROCKET, skipDuplicateCheck="true")
        await until(lambda: any(each.done() for each in slow))
        (dropped,) = [each.result() for each in slow if each.done()]
        assert dropped[0] == 429
        assert dropped[1]["errorCode"] == "TOO_MANY_UPLOADS"


async def test_what_is_read_and_not_answered_has_its_turn_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads that wait for storage are bounded, too, and make room for nobody."""
    monkeypatch.setattr(body_rate, "GRACE_S", 0.0)
    monkeypatch.setattr(body_rate, "SLOW_RATE", float("inf"))
    waiting, go_on = 0, asyncio.Event()
    accept = UploadAcceptance.accept

    async def stalled(*args: Any) -> Any:
        nonlocal waiting
        waiting += 1
        await go_on.wait()
        return await accept(*args)

    monkeypatch.setattr(UploadAcceptance, "accept", stalled)
    async with running(tmp_path, max_uploads=2) as served:
        uploads = [asyncio.create_task(served.upload(ROCKET, tenantId=each)) for each in ("a", "b")]
        await until(lambda: waiting == 2)
        form = FormData({"tenantId": TENANT}, default_to_multipart=True)
        form.add_field("file", ROCKET, filename="a.jpg")
        async with served.client.post(UPLOAD, data=form) as response:
            answer = await response.json()
        assert (response.status, answer["errorCode"]) == (429, "TOO_MANY_UPLOADS")
        assert waiting == 2
        go_on.set()
        assert all(each["imageId"] for each in await asyncio.gather(*uploads))
        await served.upload(ROCKET)


async def test_a_body_makes_room_where_others_wait_for_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_rate, "GRACE_S", 0.0)
    monkeypatch.setattr(body_rate, "WINDOW_S", 3600.0)
    waiting, go_on = 0, asyncio.Event()
    accept = UploadAcceptance.accept

    async def stalled(door: Any, image: Any, content: Any) -> Any:
        nonlocal waiting
        waiting += image.tenantId == "a"
        await (go_on.wait() if image.tenantId == "a" else asyncio.sleep(0))
        return await accept(door, image, content)

    monkeypatch.setattr(UploadAcceptance, "accept", stalled)
    async with running(tmp_path, max_uploads=2) as served:
        first = asyncio.create_task(served.upload(ROCKET, tenantId="a"))
        await until(lambda: waiting == 1)
        async with slow_clients(served, 1) as (slow,):
            await until(lambda: all(e.rate < body_rate.SLOW_RATE for e in served.body_rate.bodies))
            await served.upload(ROCKET)
            status, answer = await slow
            assert (status, answer["errorCode"]) == (429, "TOO_MANY_UPLOADS")
        go_on.set()
        assert (await first)["imageId"]


@pytest.mark.parametrize("path", ["/api/v1/admin/tenants", "/internal/rows"])
async def test_json_that_drips_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(json_body, "DEADLINE_S", 0.2)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n"
    async with running(tmp_path) as served:
        status, answer = await drip(served, head.encode() + b'{"tenantId": "acme', every=0.02)
        assert (status, answer["errorCode"]) == (408, "UPLOAD_TOO_SLOW")
        assert served.registry.tenants() == []


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
