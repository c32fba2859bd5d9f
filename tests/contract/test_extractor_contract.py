"""The extraction service as the contract has it, and the client that workers use."""

import asyncio
import base64
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from deeplens_streams.errors import ExtractorUnavailable, TooManyFrames, UndecodableImage
from deeplens_streams.extractor_service.app import build_app
from deeplens_streams.features.base import Extraction
from deeplens_streams.features.models import RESNET50, UNTRAINED
from deeplens_streams.features.remote.client import RemoteFeatures
from deeplens_streams.features.remote.errors import ExtractionFailed
from deeplens_streams.host.ports import free_port
from deeplens_streams.imaging.preprocessing import PREPROCESSING
from deeplens_streams.testing.features import MemoryFeatures
from tests.support.extractor_forms import PICTURE, SETTINGS, features, form
from tests.support.photographs import as_jpeg


@pytest.fixture
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(build_app(features(), SETTINGS))) as client:
        yield client


async def test_features_without_metadata(client: TestClient[Any, Any]) -> None:
    response = await client.post("/extract-features", data=form())
    answer = await response.json()
    assert response.status == 200
    assert set(answer) == {
        "image_id",
        "features",
        "feature_dimension",
        "model_name",
        "model_version",
        "preprocessing_version",
        "processing_time_ms",
    }
    assert answer["image_id"] == "img_1"
    assert answer["feature_dimension"] == len(answer["features"]) == 2048
    assert np.linalg.norm(answer["features"]) == pytest.approx(1, abs=1e-5)
    assert answer["model_name"] == "resnet50-untrained"
    assert answer["model_version"] == UNTRAINED.version
    assert answer["preprocessing_version"] == PREPROCESSING
    assert answer["processing_time_ms"] > 0


async def test_the_model_that_is_asked_for_answers(client: TestClient[Any, Any]) -> None:
    response = await client.post("/extract-features", data=form(model_name="resnet50-untrained"))
    assert response.status == 200
    assert (await response.json())["model_name"] == "resnet50-untrained"


async def test_features_with_metadata(client: TestClient[Any, Any]) -> None:
    response = await client.post("/extract-features", data=form(return_metadata="true"))
    answer = await response.json()
    metadata = (answer["image_width"], answer["image_height"], answer["image_format"])
    assert metadata == (640, 427, "JPEG")


async def test_features_with_a_thumbnail(client: TestClient[Any, Any]) -> None:
    response = await client.post("/extract-features", data=form(thumbnail_px="64"))
    answer = await response.json()
    with Image.open(io.BytesIO(base64.b64decode(answer["thumbnail"]))) as thumbnail:
        assert (thumbnail.format, max(thumbnail.size)) == ("JPEG", 64)


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (form(b"<html>"), 400, "UNSUPPORTED_FORMAT"),
        (form(PICTURE[: len(PICTURE) // 2]), 400, "UNDECODABLE_IMAGE"),
        (form(b"x" * 400_000), 413, "TOO_LARGE"),
        (form(as_jpeg(PICTURE, pixels=1_100_000, quality=50)), 413, "TOO_MANY_PIXELS"),
        (form(None), 400, "BAD_REQUEST"),
        (form(b""), 400, "BAD_REQUEST"),
        (form(image_id=None), 400, "BAD_REQUEST"),
        (form(image_id="x" * 2000), 413, "TOO_LARGE"),
        (form(return_metadata="perhaps"), 400, "BAD_REQUEST"),
        (form(urgent="perhaps"), 400, "BAD_REQUEST"),
        (form(thumbnail_px="1e3"), 400, "BAD_REQUEST"),
        (form(thumbnail_px="9999"), 400, "BAD_REQUEST"),
        (form(model_name="resnet50"), 400, "UNKNOWN_MODEL"),
        ({"file": "a"}, 400, "BAD_REQUEST"),
    ],
    ids=[
        "html",
        "cut short",
        "too many bytes",
        "too many pixels",
        "no file",
        "empty file",
        "no image ID",
        "long field",
        "bad flag",
        "another bad flag",
        "no number",
        "too large a thumbnail",
        "another model",
        "urlencoded",
    ],
)
async def test_errors(client: TestClient[Any, Any], sent: object, status: int, code: str) -> None:
    response = await client.post("/extract-features", data=sent)
    answer = await response.json()
    assert response.status == status
    assert set(answer) == {"detail", "error_code"}
    assert answer["error_code"] == code
    assert answer["detail"].endswith(".")


async def test_a_body_that_is_no_form_is_400(client: TestClient[Any, Any]) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        response = await client.post(
            "/extract-features", data=b"nonsense", headers={"Content-Type": kind}
        )
        assert response.status == 400
        assert (await response.json())["error_code"] == "BAD_REQUEST"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_body_that_cannot_be_decoded_is_400(
    client: TestClient[Any, Any], coding: str
) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Encoding": coding}
    response = await client.post("/extract-features", data=b"garbage", headers=headers)
    assert response.status == 400
    assert (await response.json())["error_code"] == "BAD_REQUEST"


async def test_unknown_routes_answer_as_errors_do(client: TestClient[Any, Any]) -> None:
    response = await client.get("/nowhere")
    assert response.status == 404
    assert (await response.json())["error_code"] == "HTTP_404"


async def test_health(client: TestClient[Any, Any]) -> None:
    response = await client.get("/health")
    answer = await response.json()
    assert response.status == 200
    assert answer["status"] == "healthy"
    assert answer["model_loaded"] is True
    assert answer["weights"] == "untrained"
    assert (answer["model_name"], answer["feature_dimension"]) == ("resnet50-untrained", 2048)
    assert {"service", "version"} <= answer.keys()


class Loading(MemoryFeatures):
    async def ping(self) -> None:
        raise ExtractorUnavailable("The model is loading.")

    async def extract(self, *_: object, **__: object) -> Extraction:
        raise ExtractorUnavailable("The model is loading.")


async def test_until_the_model_can_answer_it_is_503() -> None:
    async with TestClient(TestServer(build_app(Loading(), SETTINGS))) as client:
        health = await client.get("/health")
        assert (health.status, (await health.json())["model_loaded"]) == (503, False)
        response = await client.post("/extract-features", data=form())
        assert response.status == 503
        assert (await response.json())["error_code"] == "EXTRACTOR_UNAVAILABLE"


# The client ----------------------------------------------------------------------------------


@asynccontextmanager
async def calling(*urls: object, **limits: float) -> AsyncIterator[RemoteFeatures]:
    settings = SETTINGS.model_copy(
        update={"extractor_url": tuple(str(url).rstrip("/") for url in urls)}
    )
    remote = RemoteFeatures(settings, UNTRAINED, **limits)
    try:
        yield remote
    finally:
        await remote.close()


def counting(behind: MemoryFeatures | None = None) -> tuple[web.Application, list[str]]:
    app, asked = build_app(behind or features(), SETTINGS), list[str]()

    async def count(request: web.Request, _response: web.StreamResponse) -> None:
        asked.append(request.path)

    app.on_response_prepare.append(count)
    return app, asked


async def test_a_service_of_before_there_was_a_version_tells_none() -> None:
    @web.middleware
    async def older(request: web.Request, handler: Any) -> web.StreamResponse:
        answer = json.loads((await handler(request)).body)
        answer.pop("preprocessing_version", None)
        return web.json_response(answer)

    app = build_app(features(), SETTINGS)
    app.middlewares.append(older)
    async with TestServer(app) as server, calling(server.make_url("")) as remote:
        assert (await remote.extract(PICTURE)).preprocessing is None


async def test_services_share_the_load_and_a_dead_one_is_passed_over() -> None:
    (first, asked_first), (second, asked_second) = counting(), counting()
    async with (
        TestServer(first) as one,
        TestServer(second) as two,
        calling(one.make_url(""), "http://127.0.0.1:9", two.make_url("")) as remote,
    ):
        for _ in range(6):
            await remote.extract(PICTURE)
        assert len(asked_first) + len(asked_second) == 6
        assert min(len(asked_first), len(asked_second)) >= 2
        await one.close()
        for _ in range(4):
            await remote.extract(PICTURE)
        await remote.ping()


class Noting(MemoryFeatures):
    def __init__(self) -> None:
        super().__init__(model=UNTRAINED)
        self.were_urgent: list[bool] = []

    async def extract(
        self, data: bytes, *, thumbnail_px: int | None = None, urgent: bool = False
    ) -> Extraction:
        self.were_urgent.append(urgent)
        return await super().extract(data, thumbnail_px=thumbnail_px, urgent=urgent)


async def test_a_search_goes_first_in_a_service_too() -> None:
    behind = Noting()
    async with (
        TestServer(build_app(behind, SETTINGS)) as server,
        calling(server.make_url("")) as remote,
    ):
        await remote.extract(PICTURE)
        await remote.extract(PICTURE, urgent=True)
    assert behind.were_urgent == [False, True]


async def test_when_no_service_answers_it_is_unavailable() -> None:
    async with calling("http://127.0.0.1:9", "http://127.0.0.1:9/other") as remote:
        for call in (remote.extract(PICTURE), remote.ping()):
            with pytest.raises(ExtractorUnavailable, match="does not answer"):
                await call


async def test_a_service_with_another_model_is_refused() -> None:
    other = build_app(MemoryFeatures(model=RESNET50), SETTINGS)
    async with TestServer(other) as server, calling(server.make_url("")) as remote:
        with pytest.raises(ExtractorUnavailable, match="has the model resnet50, and resnet50-untr"):
            await remote.extract(PICTURE)
        with pytest.raises(ExtractorUnavailable, match="has the model resnet50"):
            await remote.ping()


async def test_what_is_no_extraction_service_is_unavailable() -> None:
    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hello)
    async with TestServer(app) as server, calling(server.make_url("")) as remote:
        with pytest.raises(ExtractorUnavailable, match="is no extraction service"):
            await remote.extract(PICTURE)


async def test_a_service_that_loads_is_unavailable() -> None:
    async with (
        TestServer(build_app(Loading(), SETTINGS)) as server,
        calling(server.make_url("")) as remote,
    ):
        for call in (remote.extract(PICTURE), remote.ping()):
            with pytest.raises(ExtractorUnavailable):
                await call


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (429, "HTTP_429", ExtractorUnavailable),
        (502, "", ExtractorUnavailable),
        (503, "EXTRACTOR_UNAVAILABLE", ExtractorUnavailable),
        (504, "", ExtractorUnavailable),
        (404, "HTTP_404", ExtractorUnavailable),
        (500, "INTERNAL", ExtractionFailed),
        (500, "", ExtractionFailed),
        (400, "BAD_REQUEST", ExtractionFailed),
        (400, "UNDECODABLE_IMAGE", UndecodableImage),
        (413, "TOO_MANY_FRAMES", TooManyFrames),
        (413, "", ExtractionFailed),
    ],
)
async def test_only_who_cannot_answer_is_away(
    status: int, code: str, error: type[Exception]
) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        if not code:
            return web.Response(text="<h1>A proxy</h1>", status=status)
        return web.json_response({"detail": "So it is.", "error_code": code}, status=status)

    app = web.Application()
    app.router.add_post("/extract-features", refuse)
    async with TestServer(app) as server, calling(server.make_url("")) as remote:
        with pytest.raises(error, match="So it is" if code and status != 404 else "HTTP"):
            await remote.extract(PICTURE)


class Broken(MemoryFeatures):
    async def extract(self, *_: object, **__: object) -> Extraction:
        raise MemoryError("no room for 9 GiB")


async def test_an_unexpected_error_is_named_to_workers_without_its_trace() -> None:
    async with TestClient(TestServer(build_app(Broken(model=UNTRAINED), SETTINGS))) as client:
        response = await client.post("/extract-features", data=form())
        answer = await response.json()
        assert (response.status, answer["error_code"]) == (500, "INTERNAL")
        assert "MemoryError" in answer["detail"]
        assert "Traceback" not in answer["detail"]
        async with calling(client.make_url("")) as remote:
            for _ in range(5):  # however many fail so, the service is not away
                with pytest.raises(ExtractionFailed, match="HTTP 500: Unexpected MemoryError"):
                    await remote.extract(PICTURE)


async def test_a_service_that_fails_with_every_picture_does_not_draw_all_of_them() -> None:
    """It has fewer in hand than any other: it answers at once."""
    broken, fine = counting(Broken(model=UNTRAINED)), counting()
    async with (
        TestServer(broken[0]) as one,
        TestServer(fine[0]) as two,
        calling(one.make_url(""), two.make_url(""), rest_s=60.0) as remote,
    ):
        results = [await outcome(remote) for _ in range(30)]
    assert results.count("ExtractionFailed") == broken[1].count("/extract-features") == 3
    assert results.count("") == 27


async def outcome(remote: RemoteFeatures) -> str:
    try:
        await remote.extract(PICTURE)
    except Exception as error:
        return type(error).__name__
    return ""


# Services that hang --------------------------------------------------------------------------


class Hanging:
    """An app that takes pictures and answers none, until it is told to."""

    def __init__(self, *, health: bool) -> None:
        self.asked = 0
        self.most = self.in_hand = 0
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self._health = health
        self._real = MemoryFeatures(max_pixels=SETTINGS.max_pixels, model=UNTRAINED)
        self.app = build_app(self._real, SETTINGS)
        self.app.middlewares.append(self._hang)

    @web.middleware
    async def _hang(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path == "/health" and self._health:
            return cast(web.StreamResponse, await handler(request))
        picture = request.path != "/health"
        self.asked += picture
        self.in_hand += picture
        self.most = max(self.most, self.in_hand)
        self.begun.set()
        try:
            await self.go.wait()
            return cast(web.StreamResponse, await handler(request))
        finally:
            self.in_hand -= picture


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0)
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()


async def test_what_a_hanging_service_has_in_hand_goes_to_others_soon() -> None:
    hanging = Hanging(health=False)
    async with (
        served(hanging.app) as one,
        served(build_app(features(), SETTINGS)) as two,
        calling(one, two, look_s=0.1, ping_s=0.1, rest_s=0.1) as remote,
    ):
        async with asyncio.timeout(20):  # one request's time is six minutes
            await asyncio.gather(*(remote.extract(PICTURE) for _ in range(12)))
            asked = hanging.asked
            assert asked >= 2
            for _ in range(30):
                await remote.extract(PICTURE)
        assert hanging.asked == asked
        hanging.go.set()
        async with asyncio.timeout(20):
            while hanging.asked == asked:  # it answers again, so it is used again
                await remote.extract(PICTURE)


async def test_one_that_says_it_is_well_and_answers_none_is_tried_with_one_at_a_time() -> None:
    hanging = Hanging(health=True)
    async with (
        served(hanging.app) as one,
        served(build_app(features(), SETTINGS)) as two,
        calling(one, two, timeout_s=1.0, rest_s=0.05) as remote,
    ):
        await remote.extract(PICTURE)
        await remote.extract(PICTURE)
        hanging.most = 0
        loop = asyncio.get_running_loop()
        until, done = loop.time() + 4, 0
        while loop.time() < until:
            await asyncio.gather(*(remote.extract(PICTURE) for _ in range(4)))
            done += 4
        assert hanging.most == 1
        assert done >= 8


async def test_a_slow_service_has_no_more_in_hand_than_a_fast_one() -> None:
    slow = Hanging(health=True)
    fast, asked = counting()
    async with (
        served(slow.app) as one,
        served(fast) as two,
        calling(one, two) as remote,
    ):
        waiting = asyncio.create_task(remote.extract(PICTURE))
        async with asyncio.timeout(20):
            await slow.begun.wait()
            for _ in range(10):
                await remote.extract(PICTURE)
            slow.go.set()
            await waiting
    assert slow.asked == 1
    assert asked.count("/extract-features") == 10


async def test_a_service_that_comes_back_is_used_again() -> None:
    port = free_port()
    app, asked = counting()
    fine = build_app(features(), SETTINGS)
    async with (
        served(fine) as one,
        calling(one, f"http://127.0.0.1:{port}", rest_s=0.05) as remote,
    ):
        for _ in range(2):
            await remote.extract(PICTURE)
        late = TestServer(app, port=port)
        await late.start_server()
        try:
            async with asyncio.timeout(20):
                while "/extract-features" not in asked:
                    await remote.extract(PICTURE)
        finally:
            await late.close()
    assert asked[0] == "/health"


async def test_readiness_does_not_wait_for_a_service_that_hangs() -> None:
    hanging = Hanging(health=False)
    async with (
        served(hanging.app) as one,
        served(build_app(features(), SETTINGS)) as two,
        calling(one, two, ping_s=60.0) as remote,
        asyncio.timeout(10),
    ):
        await remote.ping()


# The process ---------------------------------------------------------------------------------

RUN = (
    "import sys\n"
    "from deeplens_streams.config import load_settings\n"
    "from deeplens_streams.errors import DeepLensError\n"
    "from deeplens_streams.extractor_service.app import run\n"
    "try:\n"
    "    run(load_settings())\n"
    "except DeepLensError as error:\n"
    "    sys.exit(error.message)\n"
)


async def start_service(port: int) -> asyncio.subprocess.Process:
    environment = os.environ | {
        "DEEPLENS_WEIGHTS": "untrained",
        "DEEPLENS_EXTRACTOR_PORT": str(port),
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN), env=environment, stderr=asyncio.subprocess.PIPE
    )


async def test_the_real_service_from_start_to_end() -> None:
    port = free_port()
    service = await start_service(port)
    try:
        statuses = set()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with asyncio.timeout(120):
                while 200 not in statuses:
                    try:
                        async with session.get("/health") as response:
                            statuses.add(response.status)
                    except aiohttp.ClientConnectionError:
                        pass  # it does not listen yet
                    await asyncio.sleep(0.02)
            async with session.post("/extract-features", data=form()) as response:
                answer = await response.json()
        assert statuses == {503, 200}
        assert answer["model_name"] == "resnet50-untrained"
        assert len(answer["features"]) == 2048
        async with calling(f"http://127.0.0.1:{port}") as remote:
            vector = (await remote.extract(PICTURE)).vector
        assert vector == pytest.approx(np.array(answer["features"], np.float32), abs=1e-6)

        second = await start_service(port)
        _, told = await second.communicate()
        assert second.returncode == 1
        assert told.decode().count("\n") == 1
        assert f"Cannot listen on 127.0.0.1:{port}" in told.decode()
    finally:
        service.send_signal(signal.SIGTERM)
        _, told = await service.communicate()
    assert service.returncode == 0
    assert "Traceback" not in told.decode()
