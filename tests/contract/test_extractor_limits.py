"""What the extraction service takes at once, and from whom."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from deeplens_streams.errors import ConfigurationError
from deeplens_streams.extractor_service import app as service
from deeplens_streams.extractor_service.app import build_app
from deeplens_streams.features.base import Extraction
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.testing.features import MemoryFeatures
from tests.support.extractor_forms import PICTURE, SETTINGS, features, form
from tests.support.web_server import until


@pytest.fixture
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(build_app(features(), SETTINGS))) as client:
        yield client


async def test_a_form_has_so_many_parts(client: TestClient[Any, Any]) -> None:
    for others, status in ((14, 200), (15, 400)):
        response = await client.post(
            "/extract-features",
            data=form(PICTURE, **{f"other_{each}": "x" for each in range(others)}),
        )
        assert response.status == status
    assert "more than 16 parts" in (await response.json())["detail"]


async def test_parts_together_have_a_limit(client: TestClient[Any, Any]) -> None:
    several = form()
    for _ in range(3):
        several.add_field("file", bytes(200_000), filename="again.jpg")
    response = await client.post("/extract-features", data=several)
    answer = await response.json()
    assert (response.status, answer["error_code"]) == (413, "TOO_LARGE")
    assert "The form has more than 365,536 bytes" in answer["detail"]


async def test_a_form_that_does_not_come_is_not_waited_for() -> None:
    forever = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image_id"\r\n\r\n'
        await forever.wait()

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    app = build_app(features(), SETTINGS, form_s=0.1)
    async with TestClient(TestServer(app)) as client, asyncio.timeout(20):
        response = await client.post("/extract-features", data=slow(), headers=headers)
        answer = await response.json()
        assert (response.status, answer["error_code"]) == (408, "UPLOAD_TOO_SLOW")
        assert (await client.post("/extract-features", data=form())).status == 200
        forever.set()


class Held(MemoryFeatures):
    """It answers when it is let go."""

    def __init__(self) -> None:
        super().__init__(max_pixels=SETTINGS.max_pixels, model=UNTRAINED)
        self.begun, self.go = 0, asyncio.Event()

    async def extract(self, *args: Any, **options: Any) -> Extraction:
        self.begun += 1
        await self.go.wait()
        return await super().extract(*args, **options)


async def test_more_pictures_than_it_may_have_are_told_when_to_come_again() -> None:
    held = Held()
    app = build_app(held, SETTINGS.model_copy(update={"max_uploads": 2}))
    async with TestClient(TestServer(app)) as client:
        first = [asyncio.ensure_future(client.post("/extract-features", data=form())) for _ in "12"]
        await until(lambda: held.begun == 2)
        response = await client.post("/extract-features", data=form())
        answer = await response.json()
        assert (response.status, answer["error_code"]) == (503, "EXTRACTOR_UNAVAILABLE")
        assert response.headers["Retry-After"] == "1"
        assert (await client.get("/health")).status == 200
        held.go.set()
        assert [each.status for each in await asyncio.gather(*first)] == [200, 200]
        assert (await client.post("/extract-features", data=form())).status == 200


async def test_pictures_wait_their_turn_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_IN_MEMORY", 2)
    held, prepared = Held(), 0
    app = build_app(held, SETTINGS.model_copy(update={"batch_size": 1}))

    @web.middleware
    async def count(request: web.Request, handler: Any) -> web.StreamResponse:
        nonlocal prepared
        prepared += 1
        return cast(web.StreamResponse, await handler(request))

    app.middlewares.append(count)
    async with TestClient(TestServer(app)) as client:
        posts = (client.post("/extract-features", data=form()) for _ in range(5))
        answers = asyncio.gather(*posts)
        await until(lambda: prepared == 5 and held.begun == 2)
        held.go.set()
        assert {each.status for each in await answers} == {200}
    assert held.begun == 5


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])
def test_others_do_not_reach_it_unless_that_is_meant(host: str) -> None:
    settings = SETTINGS.model_copy(update={"extractor_host": host})
    with pytest.raises(ConfigurationError, match="DEEPLENS_INSECURE"):
        service.run(settings)
    service.check_address(settings.model_copy(update={"insecure": True}))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_nothing_needs_to_be_said(host: str) -> None:
    service.check_address(SETTINGS.model_copy(update={"extractor_host": host}))
