"""Images through the model's process with a hostile decoder, alone, over HTTP and in a stage."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import COMPLETED
from deeplens_streams.circuit_breaker import Breakers
from deeplens_streams.config import Settings
from deeplens_streams.extractor_service.app import build_app
from deeplens_streams.features.base import FeatureExtractor
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.features.remote.client import RemoteFeatures
from deeplens_streams.pipeline.stage import Stage
from models.events import FeatureExtractionRequested, ProcessingFailed
from tests.model.hostile_process import picture
from tests.support.stage_messages import Outbox, Stream, letters, with_policy

SETTINGS = Settings(weights="untrained", log_format="json")
GOOD = b"good"


async def a_vector(features: FeatureExtractor, number: int) -> None:
    assert (await features.extract(picture(GOOD, number))).vector.shape == (2048,)


@asynccontextmanager
async def over_http(behind: FeatureExtractor) -> AsyncIterator[tuple[RemoteFeatures, list[int]]]:
    """Yield a client of a service and of one that nobody is to need, and who answered what."""
    statuses = list[int]()

    async def count(_request: web.Request, response: web.StreamResponse) -> None:
        statuses.append(response.status)

    async def never(_request: web.Request) -> web.Response:
        pytest.fail("the picture was passed on")

    other = web.Application()
    other.router.add_post("/extract-features", never)
    app = build_app(behind, SETTINGS)
    app.on_response_prepare.append(count)
    async with TestServer(app) as server, TestServer(other) as spare:
        urls = tuple(str(each.make_url("")).rstrip("/") for each in (server, spare))
        remote = RemoteFeatures(
            SETTINGS.model_copy(update={"extractor_url": urls}), UNTRAINED, look_s=0.1
        )
        try:
            yield remote, statuses
        finally:
            await remote.close()


async def letter_of(features: FeatureExtractor, data: bytes) -> tuple[list[ProcessingFailed], int]:
    """Send a picture through a stage; return its dead letters and how many events were sent on."""
    breakers = Breakers()
    guarded = breakers.guard(features, "extractor")

    async def process(event: FeatureExtractionRequested) -> list[Message]:
        await guarded.extract(data)
        return [Message(COMPLETED, event)]

    outbox = Outbox()
    stage = Stage(
        name="feature_extraction",
        record=FeatureExtractionRequested,
        process=process,
        publish=outbox.send,
        breakers=breakers,
    )
    async with asyncio.timeout(30):
        await stage.run(Stream(codec.encode(with_policy())))
    assert not breakers["extractor"].is_open
    return letters(outbox), len(outbox.sent)
