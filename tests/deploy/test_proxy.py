"""haproxy.cfg in a real HAProxy, in front of workers that misbehave."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from deeplens_streams.errors import DependencyUnavailable
from deeplens_streams.host.ports import free_port
from deeplens_streams.web import ROUTES
from tests.deploy.tools import DOCKER, run
from tests.support.programs import program

CONFIG = DOCKER / "haproxy.cfg"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def assert_alive(process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.poll() is None, log.read_text()


async def until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    async with asyncio.timeout(20):
        while True:
            assert_alive(process, log)
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return


def with_workers(config: str, public: int, workers: list[int], *, checked: bool) -> str:
    """Return the configuration with fixed workers in place of those that Docker's DNS knows.

    Those that are not checked are found by a request where they are dead.
    """

    def servers(template: re.Match[str]) -> str:
        options = template[1] if checked else " no-check"
        return "".join(
            f"    server w{i} 127.0.0.1:{port}{options}\n" for i, port in enumerate(workers)
        )

    template = re.compile(r"^ *server-template \S+ \S+ \S+(.*)\n", re.MULTILINE)
    config, found = template.subn(servers, config)
    assert found == 2
    config = config.replace("bind :8080", f"bind 127.0.0.1:{public}")
    return config.replace("bind 127.0.0.1:8081", f"bind 127.0.0.1:{free_port()}")


@contextmanager
def started(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program("haproxy"), "-db", "-f", str(config)], stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def proxy(tmp_path: Path) -> Callable[..., object]:
    """Return a context manager: the proxy's URL, in front of workers on these ports."""

    @asynccontextmanager
    async def running(*workers: int, checked: bool = False) -> AsyncIterator[str]:
        config, public = tmp_path / "haproxy.cfg", free_port()
        written = with_workers(CONFIG.read_text("utf-8"), public, list(workers), checked=checked)
        config.write_text(written)
        with started(config, tmp_path / "log") as process:
            await until_it_listens(public, process, tmp_path / "log")
            yield f"http://127.0.0.1:{public}"

    return running


@asynccontextmanager
async def worker(handler: Handler) -> AsyncIterator[int]:
    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield port
    await runner.cleanup()


async def answer_path(request: web.Request) -> web.Response:
    return web.Response(text=request.path)


@pytest.mark.needs("haproxy")
def test_haproxy_reads_the_file() -> None:
    run(program("haproxy"), "-c", "-f", str(CONFIG))


async def test_a_worker_that_is_gone_is_passed_over(proxy: Callable[..., Any]) -> None:
    async with (
        worker(answer_path) as alive,
        proxy(free_port(), alive, free_port()) as url,
        aiohttp.ClientSession() as http,
    ):
        for _ in range(12):
            async with http.post(f"{url}/api/v1/images/upload", data=b"picture") as response:
                assert (response.status, await response.text()) == (200, "/api/v1/images/upload")


UPLOAD = "/api/v1/images/upload"
SAYS_NO = {"success": False, "errorCode": "BROKER_UNAVAILABLE", "message": "Kafka is away."}


class Checked:
    """A worker that lives and is asked whether it can take uploads, and how it answers.

    Where it cannot, an upload is refused.
    """

    def __init__(self, name: str, *, status: int = 200, seconds: float = 0.0) -> None:
        self.name, self.status, self.seconds = name, status, seconds
        self.asked: list[str] = []
        #: Two checks that failed would have been enough.
        self.asked_often = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == UPLOAD and self.status != 200:
            return web.json_response(SAYS_NO, status=self.status, headers={"Retry-After": "5"})
        if request.path != "/health/ready":
            return web.Response(text=self.name)
        self.asked.append(request.path_qs)
        if len(self.asked) == 3:
            self.asked_often.set()
        await asyncio.sleep(self.seconds)  # it waits for a dependency
        return web.Response(status=self.status)


async def answering(url: str, http: aiohttp.ClientSession) -> set[str]:
    """Return who takes uploads, of workers that take turns."""
    found = set()
    for _ in range(4):
        async with http.post(f"{url}{UPLOAD}", data=b"picture") as response:
            found.add(await response.text() if response.status == 200 else str(response.status))
    return found


async def until_they_answer(url: str, http: aiohttp.ClientSession, wanted: set[str]) -> None:
    async with asyncio.timeout(30):
        while True:
            if await answering(url, http) == wanted:
                return
            await asyncio.sleep(0.1)


async def test_a_worker_that_takes_long_to_say_that_it_is_ready_is_ready(
    proxy: Callable[..., Any],
) -> None:
    # What a worker needs that gives a dependency its 2 s, and some time of its own.
    slow = Checked("slow", seconds=2.5)
    async with (
        worker(slow.answer) as port,
        proxy(port, checked=True) as url,
        aiohttp.ClientSession() as http,
    ):
        async with asyncio.timeout(40):
            await slow.asked_often.wait()
        assert await answering(url, http) == {"slow"}
    # Uploads need no more.
    assert set(slow.asked) == {"/health/ready?only=broker,storage"}


async def test_uploads_pass_a_worker_over_that_is_not_ready(proxy: Callable[..., Any]) -> None:
    well, sick = Checked("well"), Checked("sick", status=503)
    async with (
        worker(well.answer) as one,
        worker(sick.answer) as other,
        proxy(one, other, checked=True) as url,
        aiohttp.ClientSession() as http,
    ):
        await until_they_answer(url, http, {"well"})
        # It goes on with all else.
        found = set()
        for _ in range(4):
            async with http.get(f"{url}/api/v1/images/img_1/status") as response:
                found.add(await response.text())
        assert found == {"well", "sick"}
        sick.status, well.status = 200, 503
        await until_they_answer(url, http, {"sick"})


async def test_without_kafka_all_workers_go_on_with_the_rest(proxy: Callable[..., Any]) -> None:
    """What all share is away: nobody is ready for uploads, and each answers for itself."""
    one, other = Checked("one", status=503), Checked("other", status=503)
    async with (
        worker(one.answer) as first,
        worker(other.answer) as second,
        proxy(first, second, checked=True) as url,
        aiohttp.ClientSession() as http,
    ):
        async with asyncio.timeout(30):
            await one.asked_often.wait()
            await other.asked_often.wait()
        for method, path in (
            ("GET", "/api/v1/images/img_1/status"),
            ("POST", "/api/v1/images/search"),
            ("GET", "/health/live"),
        ):
            for _ in range(4):
                async with http.request(method, f"{url}{path}") as response:
                    assert (response.status, path) == (200, path)
        # The worker's own words, not the proxy's.
        async with http.get(f"{url}/health/ready") as response:
            assert (response.status, await response.text()) == (503, "")
        async with http.post(f"{url}{UPLOAD}", data=b"picture") as response:
            assert (response.status, await response.json()) == (503, SAYS_NO)
            assert response.headers["Retry-After"] == "5"


async def test_without_a_worker_the_proxy_speaks_as_the_api_does(proxy: Callable[..., Any]) -> None:
    async def dead(_request: web.Request) -> web.Response:
        return web.Response(status=500)

    async with (
        worker(dead) as port,
        proxy(port, free_port(), checked=True) as url,
        aiohttp.ClientSession() as http,
        asyncio.timeout(30),
    ):
        while True:
            async with http.post(f"{url}{UPLOAD}", data=b"picture") as response:
                if response.status == 503:
                    break
            await asyncio.sleep(0.1)
        for path in ("/api/v1/images/img_1/status", "/health/ready", UPLOAD):
            async with http.get(f"{url}{path}") as response:
                assert response.status == 503
                assert response.headers["Retry-After"] == "5"
                assert response.content_type == "application/json"
                answer = await response.json()
        assert answer.keys() == {"success", "message", "errorCode"}
        assert answer["success"] is False
        assert answer["errorCode"] == DependencyUnavailable.code


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_request_that_a_worker_began_to_read_is_not_sent_again(
    method: str, proxy: Callable[..., Any]
) -> None:
    taken: list[bytes] = []

    async def die(request: web.Request) -> web.StreamResponse:
        taken.append(await request.content.readany())
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with worker(die) as one, worker(die) as other, proxy(one, other) as url:
        for sent in range(1, 7):
            async with (
                aiohttp.ClientSession() as http,
                http.request(method, f"{url}/api/v1/images/upload", data=b"x" * 1000) as response,
            ):
                assert response.status == 502
            assert len(taken) == sent


async def test_an_upload_streams(proxy: Callable[..., Any]) -> None:
    """The worker has the beginning while the client still holds back the end."""
    arrived, size = asyncio.Event(), 10_000_000
    received = 0

    async def upload(request: web.Request) -> web.Response:
        nonlocal received
        async for chunk in request.content.iter_any():
            received += len(chunk)
            if received >= size // 2:
                arrived.set()
        return web.Response(text=str(received))

    async def body() -> AsyncIterator[bytes]:
        yield bytes(size // 2)
        await arrived.wait()
        yield bytes(size - size // 2)

    async with (
        worker(upload) as port,
        proxy(port) as url,
        aiohttp.ClientSession() as http,
        asyncio.timeout(60),
        http.post(f"{url}/api/v1/images/upload", data=body()) as response,
    ):
        assert await response.text() == str(size)


async def test_websockets_pass(proxy: Callable[..., Any]) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket_ = web.WebSocketResponse()
        await socket_.prepare(request)
        async for message in socket_:
            await socket_.send_str(f"{request.query['imageId']} {message.data}")
        return socket_

    async with (
        worker(echo) as port,
        proxy(port) as url,
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{url}/hub/processing-status?imageId=img_1") as client,
    ):
        await client.send_str("hello")
        assert await client.receive_str(timeout=30) == "img_1 hello"


async def test_clients_reach_what_they_need_and_nothing_else(proxy: Callable[..., Any]) -> None:
    inside = ("/internal", "/tables", "/metrics")
    tricks = ["/%69nternal/rows", "/api/../internal/rows", "//internal/rows", "/./tables", "/x"]
    async with worker(answer_path) as port, proxy(port) as url:
        for path in [*(route.path for route in ROUTES), *tricks]:
            wanted = path not in tricks and not path.startswith(inside)
            # By hand, because clients tidy a path up before they send it.
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url[-5:].lstrip(":")))
            target = re.sub(r"\{\w+\}", "img_1", path)
            writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            status = (await reader.read()).split()[1]
            writer.close()
            await writer.wait_closed()
            assert status == (b"200" if wanted else b"404"), path
