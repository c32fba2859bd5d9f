"""Pictures by address: fetched as uploads are read, and never from our own network."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData, web
from aiohttp.test_utils import TestServer

from deeplens_streams.client import models
from deeplens_streams.config import load_settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.ingest import body_rate, fetcher, private_networks
from tests.support.photographs import photograph
from tests.support.web_server import TENANT, UPLOAD, Web, running, until

ROCKET = photograph("rocket").data
LIMIT = 200_000


class Site:
    """A server of pictures that strangers may be sent to; 127.0.0.1 plays the public internet."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        app = web.Application(middlewares=[self._note])
        app.router.add_get("/a rocket.png", self.picture)
        app.router.add_get("/picture", self.picture)
        app.router.add_get("/to", self.redirect)
        app.router.add_get("/loop/{times}", self.loop)
        app.router.add_get("/endless", self.endless)
        app.router.add_get("/large", self.large)
        app.router.add_get("/silent", self.silent)
        app.router.add_get("/text", self.text)
        app.router.add_get("/empty", self.empty)
        app.router.add_get("/cookie", self.cookie)
        self.server = TestServer(app)

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request)
        response: web.StreamResponse = await handler(request)
        return response

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server.port}{path}"

    async def picture(self, _request: web.Request) -> web.Response:
        return web.Response(body=ROCKET, content_type="text/html")

    async def redirect(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query["where"]})

    async def loop(self, request: web.Request) -> web.Response:
        times = int(request.match_info["times"])
        where = f"/loop/{times - 1}" if times else "/picture"
        return web.Response(status=307, headers={"Location": where})

    async def cookie(self, _request: web.Request) -> web.Response:
        headers = {"Location": "/picture", "Set-Cookie": "a=b"}
        return web.Response(status=302, headers=headers)

    async def endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65_536))

    async def large(self, _request: web.Request) -> web.Response:
        return web.Response(body=ROCKET.ljust(LIMIT + 1, b"\0"))

    async def silent(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(ROCKET[:1000])
        await asyncio.sleep(3600)
        return response

    async def text(self, _request: web.Request) -> web.Response:
        return web.Response(text="root:x:0:0", content_type="image/jpeg")

    async def empty(self, _request: web.Request) -> web.Response:
        return web.Response(content_type="image/jpeg")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    async with made.server:
        yield made


@pytest.fixture
async def served(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Web]:
    only_the_site = partial(private_networks.PublicSockets, lambda each: each == "127.0.0.1")
    monkeypatch.setattr(fetcher, "PublicSockets", only_the_site)
    settings: dict[str, Any] = {"url_import": True, "url_import_ports": (site.server.port,)}
    async with running(tmp_path, max_upload_bytes=LIMIT, **settings) as found:
        yield found


async def import_from(served: Web, url: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    form = FormData({"tenantId": TENANT, "url": url} | fields, default_to_multipart=True)
    async with served.client.post(UPLOAD, data=form) as response:
        return response.status, await response.json()


async def refused(served: Web, url: str, code: str, status: int = 400) -> str:
    found, answer = await import_from(served, url)
    assert (found, answer["errorCode"]) == (status, code), answer
    assert answer.keys() == models.Upload.blank().keys()
    assert served.published == []
    await until(lambda: not served.spooled)
    message: str = answer["message"]
    return message


async def test_a_picture_by_its_address(served: Web, site: Site) -> None:
    status, answer = await import_from(served, site.url("/a%20rocket.png?token=x"))
    assert status == 202
    image = await served.storage.find(answer["imageId"])
    assert image is not None
    assert image.fileName == "a rocket.png"
    assert image.contentType == "image/jpeg"
    assert await served.storage.get(tenant=TENANT, key=image.originalKey) == ROCKET
    assert served.spooled == []
    again = (await import_from(served, site.url("/picture")))[1]
    assert again["duplicateOf"] == answer["imageId"]


async def test_redirects_are_followed_a_few_times(served: Web, site: Site) -> None:
    status, _ = await import_from(served, site.url(f"/loop/{fetcher.MAX_REDIRECTS - 1}"))
    assert status == 202
    assert "redirects" in await refused_after(served, site.url(f"/loop/{fetcher.MAX_REDIRECTS}"))


async def refused_after(served: Web, url: str) -> str:
    served.published.clear()
    return await refused(served, url, "URL_REFUSED")


@pytest.mark.parametrize("host", ["127.0.0.2", "0.0.0.0", "[::ffff:127.0.0.2]"])
async def test_our_own_network_is_not_reached(served: Web, site: Site, host: str) -> None:
    assert "not public" in await refused(served, site.url("/picture", host), "URL_REFUSED")
    assert site.asked == []


@pytest.mark.parametrize("where", ["/picture", "//127.0.0.2:{port}/picture"])
async def test_nor_by_a_redirect(served: Web, site: Site, where: str) -> None:
    target = site.url("/picture", "127.0.0.2") if where == "/picture" else where
    url = site.url(f"/to?where={target.format(port=site.server.port)}")
    assert "not public" in await refused(served, url, "URL_REFUSED")
    assert [request.path for request in site.asked] == ["/to"]


@pytest.mark.parametrize(
    "where",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://127.0.0.1:6379/",
        "http://a:b@127.0.0.1/",
        "http://127.0.0.1:99999/",
    ],
)
async def test_redirects_are_checked_like_addresses(served: Web, site: Site, where: str) -> None:
    for url in (where, site.url(f"/to?where={where}")):
        await refused(served, url, "URL_REFUSED")
    assert {request.path for request in site.asked} == {"/to"}


async def test_a_name_that_changes_its_mind(
    served: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks a name up twice checks one address and connects to another."""
    looked_up = []

    async def resolve(_self: Any, host: str, port: int = 0, family: int = 0) -> Any:
        looked_up.append(host)
        address = "127.0.0.1" if len(looked_up) == 1 else "127.0.0.2"
        shape = {"hostname": host, "port": port, "family": 2, "proto": 0, "flags": 0}
        return [shape | {"host": address}]

    monkeypatch.setattr(fetcher._Resolver, "resolve", resolve)
    status, _ = await import_from(served, site.url("/picture", "rebind.example"))
    assert status == 202
    assert looked_up == ["rebind.example"]
    message = await refused_after(served, site.url("/picture", "rebind.example"))
    assert "not public" in message
    assert len(site.asked) == 1


async def test_a_silent_name_server_holds_up_nobody_else(
    served: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage needs the loop's threads."""
    loop, answered, asked = asyncio.get_running_loop(), threading.Event(), 0
    loop.set_default_executor(ThreadPoolExecutor(1))
    look_up = socket.getaddrinfo

    def silent(host: Any, *args: Any) -> Any:
        nonlocal asked
        if host != "silent.example":
            return look_up(host, *args)
        asked += 1
        answered.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    url = site.url("/picture", "silent.example")
    waiting = [asyncio.create_task(import_from(served, url)) for _ in range(8)]
    try:
        await until(lambda: asked > 1)
        async with asyncio.timeout(5):
            await asyncio.to_thread(int)
        # An address in numbers is not looked up.
        assert (await import_from(served, site.url("/picture")))[0] == 202
    finally:
        answered.set()
    for status, answer in await asyncio.gather(*waiting):
        assert (status, answer["errorCode"]) == (400, "URL_NOT_FETCHED")


async def test_only_the_public_internet_without_a_test_around_it(
    tmp_path: Path, site: Site
) -> None:
    async with running(tmp_path, url_import=True, url_import_ports=(site.server.port,)) as served:
        for host in ("127.0.0.1", "localhost"):
            await refused(served, site.url("/picture", host), "URL_REFUSED")
    assert site.asked == []


async def test_large_bodies_are_cut_off(served: Web, site: Site) -> None:
    for path in ("/endless", "/large"):
        assert f"{LIMIT:,}" in await refused(served, site.url(path), "TOO_LARGE", 413)


async def test_servers_that_drip(served: Web, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_rate, "WINDOW_S", 0.2)
    assert "slowly" in await refused(served, site.url("/silent"), "URL_NOT_FETCHED")


async def test_what_is_no_picture(served: Web, site: Site) -> None:
    await refused(served, site.url("/text"), "UNSUPPORTED_FORMAT", 415)
    assert "empty" in await refused(served, site.url("/empty"), "URL_NOT_FETCHED")
    assert "404" in await refused(served, site.url("/nothing"), "URL_NOT_FETCHED")


async def test_what_the_other_server_is_told(
    served: Web, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    headers = {"Cookie": "session=1", "Authorization": "Bearer 1"}
    served.client.session.headers.update(headers)
    assert (await import_from(served, site.url("/cookie")))[0] == 202
    for request in site.asked:
        assert not {"Cookie", "Authorization", "Referer"} & set(request.headers)
        assert request.headers["Accept-Encoding"] == "identity"


async def test_it_is_off_by_default(tmp_path: Path, site: Site) -> None:
    async with running(tmp_path) as served:
        message = await refused(served, site.url("/picture"), "BAD_REQUEST")
        assert "fetches no addresses" in message
    assert site.asked == []


@pytest.mark.parametrize(
    "url",
    [
        *("http://[::1/", "http:///x", "x", "//a/b", "http://" + "a" * 3000),
        *("http://2130706433/", "http://0177.0.0.1/", "http://127.1/"),
    ],
)
async def test_what_is_no_address(served: Web, url: str) -> None:
    await refused(served, url, "URL_REFUSED")


async def test_either_a_file_or_an_address(served: Web, site: Site) -> None:
    form = FormData({"tenantId": TENANT, "url": site.url("/picture")})
    form.add_field("file", ROCKET, filename="a.jpg")
    async with served.client.post(UPLOAD, data=form) as response:
        assert (response.status, (await response.json())["errorCode"]) == (400, "BAD_REQUEST")
    assert site.asked == []


async def test_a_server_that_is_away(served: Web, site: Site) -> None:
    url = site.url("/picture")
    await site.server.close()
    await refused(served, url, "URL_NOT_FETCHED")


@pytest.mark.parametrize("value", ["http", "80,", "0", "70000"])
def test_ports_are_numbers(value: str) -> None:
    with pytest.raises(ConfigurationError, match="DEEPLENS_URL_IMPORT_PORTS"):
        load_settings(url_import_ports=value)
