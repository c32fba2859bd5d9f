"""A Qdrant server is away for a while: events wait, and the log says it in a few lines.

The server is a small one of ours that answers the calls of indexing as Qdrant does, with Qdrant's
own client before it; Qdrant's server itself is no test dependency.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from obstore.store import MemoryStore
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from agents import vector_indexing
from deeplens_streams import logs
from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import FAILED, INDEXING, PROGRESS
from deeplens_streams.circuit_breaker import TRIES, Breakers
from deeplens_streams.circuit_breaker import breaker as circuit_breaker
from deeplens_streams.config import load_settings
from deeplens_streams.errors import VectorsUnavailable
from deeplens_streams.host.ports import free_port
from deeplens_streams.pipeline import attempts
from deeplens_streams.services import Services, services_over
from deeplens_streams.storage import Blobs
from deeplens_streams.testing.features import MemoryFeatures
from deeplens_streams.vectors.qdrant import client
from deeplens_streams.vectors.qdrant.client import connect
from deeplens_streams.vectors.qdrant.store import ServerVectors
from models.events import (
    ProcessingFailed,
    RetryPolicy,
    VectorIndexingData,
    VectorIndexingRequested,
    VectorMetadata,
    utc_now,
)
from models.images import StoredImage
from models.status import ImageProgress, StepStatus
from tests.support.qdrant_answers import info
from tests.support.registered_agents import Stream, registered
from tests.support.stored_images import image as made_image
from tests.support.web_server import until

MODEL = MemoryFeatures().model
PLACE = f"/collections/tenant_acme-corp_{MODEL.name}_vectors"
ACTORS, EVENTS = 8, 24
MAX_LINES = 10


Trouble = Callable[[web.Request], Awaitable[web.Response | None]]


class Engine:
    """As much of a Qdrant server as indexing needs.

    Attributes
    ----------
    points : image ID of each point that is stored.
    trouble : what it answers instead, if anything.
    """

    def __init__(self) -> None:
        self.points: dict[str, str] = {}
        self.trouble: Trouble | None = None
        self._made = False
        self._port = free_port()
        self._server: TestServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._server = TestServer(app, host="127.0.0.1", port=self._port)
        await self._server.start_server()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def _answer(self, request: web.Request) -> web.Response:
        if self.trouble is not None and (refusal := await self.trouble(request)) is not None:
            return refusal
        result: Any = {"operation_id": 1, "status": "completed"}
        match request.method, request.path.removeprefix(PLACE):
            case "GET", "/collections":
                result = {"collections": []}
            case "GET", "" if not self._made:
                return says(404, f"Not found: Collection `{PLACE}` doesn't exist!")
            case "GET", "":
                vectors = {"size": MODEL.dimension, "distance": "Cosine"}
                result = info(config=info()["config"] | {"params": {"vectors": vectors}})
            case "PUT", "":
                self._made = result = True
            case "PUT", "/points":
                for point in (await request.json())["points"]:
                    self.points[point["id"]] = point["payload"]["imageId"]
        return web.json_response({"status": "ok", "time": 0.0, "result": result})


def says(status: int, error: str, **headers: str) -> web.Response:
    """Return a refusal as Qdrant words it."""
    answer = {"status": {"error": error}, "time": 0.0}
    return web.json_response(answer, status=status, headers=headers)


@dataclass
class Outbox:
    sent: list[Message] = field(default_factory=list)

    async def send(self, *messages: Message) -> None:
        self.sent += messages

    @property
    def letters(self) -> list[ProcessingFailed]:
        found = [each.event for each in self.sent if each.topic is FAILED]
        return [each for each in found if isinstance(each, ProcessingFailed)]

    def attempts(self, status: StepStatus) -> list[int]:
        """Return at which attempt each report of this status was made."""
        found = [each.event for each in self.sent if each.topic is PROGRESS]
        return [
            report.attempt
            for event in found
            if isinstance(event, ImageProgress)
            for report in event.data.reports
            if report.status == status
        ]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(circuit_breaker, "LONGEST_WAIT_S", 0.04)
    monkeypatch.setattr(client, "_TIMEOUT_S", 1)  # the client takes whole seconds
    monkeypatch.setattr(attempts, "POLICY", RetryPolicy(backoffMs=1))


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def services(engine: Engine) -> AsyncIterator[Services]:
    blobs, known = Blobs(MemoryStore()), Breakers()
    vectors = ServerVectors(connect(engine.url, None))
    yield services_over(
        blobs,
        load_settings(weights="untrained"),
        model=MODEL,
        vectors=known.guard(vectors, "vectors"),
        breakers=known,
    )
    await vectors.close()


async def stored(services: Services, count: int) -> list[StoredImage]:
    images = [made_image(services.storage) for _ in range(count)]
    for each in images:
        await services.storage.put_image(each, b"a picture")
    return images


def requested(image: StoredImage) -> bytes:
    return codec.encode(
        VectorIndexingRequested(
            eventType=VectorIndexingRequested.EVENT_TYPE,
            eventId=f"index {image.imageId}",
            tenantId=image.tenantId,
            correlationId=image.correlationId,
            data=VectorIndexingData(
                imageId=image.imageId,
                modelName=MODEL.name,
                featureVector=np.full(MODEL.dimension, MODEL.dimension**-0.5).tolist(),
                vectorMetadata=VectorMetadata(
                    extractionTime=utc_now(), processingTimeMs=1.0, modelVersion="1"
                ),
                uploadedAt=image.uploadedAt,
            ),
        )
    )


async def indexed(images: list[StoredImage], services: Services, outbox: Outbox) -> None:
    """Index pictures with as many actors as a worker has."""
    agent = registered([vector_indexing], services, outbox)[INDEXING]
    values = [requested(each) for each in images]
    streams = [Stream(values[start::ACTORS]) for start in range(ACTORS)]
    await asyncio.gather(*(agent(each) for each in streams))
    assert sum(each.acked for each in streams) == len(images)


@contextmanager
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Collect what a worker would log: our own lines, and those of libraries that it lets speak."""
    said: list[Any] = []
    with caplog.at_level(logging.INFO), capture_logs() as own:
        yield said
    said += [each for each in own if each["log_level"] != "debug"]
    said += [
        record
        for record in caplog.records
        if record.levelno >= logging.WARNING or not record.name.startswith(logs._QUIET)
    ]


def failures() -> float:
    found = REGISTRY.get_sample_value(
        "deeplens_breaker_failures_total", {"dependency": VectorsUnavailable.dependency}
    )
    return found or 0.0


# Outages -------------------------------------------------------------------------------------


async def hangs(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def is_busy(_request: web.Request) -> web.Response:
    return says(429, "Rate limiting exceeded: Write rate limit exceeded", **{"Retry-After": "1"})


async def is_busy_until_a_date(_request: web.Request) -> web.Response:
    return says(429, "Too busy", **{"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})


async def has_no_leader(_request: web.Request) -> web.Response:
    return says(503, "Service unavailable: raft leader is not known")


async def is_a_proxy(_request: web.Request) -> web.Response:
    return web.Response(status=400, text="<html>The plain HTTP request was sent to HTTPS port")


async def knows_no_key(_request: web.Request) -> web.Response:
    return web.Response(status=401, text="Must provide an API key or an Authorization bearer token")


@pytest.mark.parametrize(
    ("trouble", "reason", "cause"),
    [
        (None, "does not answer now", "All connection attempts failed"),
        (hangs, "does not answer now", "ReadTimeout"),
        (is_busy, "does not answer now", "Write rate limit exceeded"),
        (is_busy_until_a_date, "does not answer now", "Retry-After"),
        (has_no_leader, "does not answer now", "HTTP 503: Service unavailable: raft leader"),
        (is_a_proxy, "does not answer now", "HTTP 400: <html>"),
        (knows_no_key, "refuses access (401); correct DEEPLENS_QDRANT_API_KEY", "HTTP 401"),
    ],
)
async def test_events_wait_and_the_log_stays_short(
    engine: Engine,
    services: Services,
    caplog: pytest.LogCaptureFixture,
    *,
    trouble: Trouble | None,
    reason: str,
    cause: str,
) -> None:
    images, outbox = await stored(services, EVENTS), Outbox()
    assert services.vectors is not None
    before, enough = failures(), 4 if trouble is hangs else 3 * MAX_LINES
    with lines(caplog) as said:
        if trouble is None:
            await engine.stop()
        else:
            engine.trouble = trouble
        work = asyncio.create_task(indexed(images, services, outbox))
        await until(lambda: failures() >= before + enough, seconds=30)
        # A readiness check asks at every try.
        for _ in range(1 if trouble is hangs else 2 * MAX_LINES):
            with pytest.raises(VectorsUnavailable):
                await services.vectors.ping()
        assert not work.done()
        assert reason in (services.breakers["vectors"].reason or "")
        engine.trouble = None
        if trouble is None:
            await engine.start()
        await asyncio.wait_for(work, 30)
    assert outbox.letters == []
    assert outbox.attempts(StepStatus.COMPLETED) == [1] * EVENTS
    assert set(outbox.attempts(StepStatus.RETRYING)) == {1}
    assert set(engine.points.values()) == {each.imageId for each in images}
    assert len(said) <= MAX_LINES, said
    events = [each["event"] for each in said]
    assert events == ["a dependency is away; waiting for it", "a dependency is back"]
    assert cause in said[0]["cause"]
    assert said[0]["failures"] == TRIES


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_one_point_that_is_refused_holds_no_other_up(
    engine: Engine, services: Services, status: int
) -> None:
    bad, *good = await stored(services, 9)
    outbox = Outbox()
    reason = "Validation error in JSON body: [points[0].payload: too deep]"
    await indexed(good[:1], services, outbox)
    tries = 0

    async def refuses_one(request: web.Request) -> web.Response | None:
        nonlocal tries
        if bad.imageId not in await request.text():
            return None
        tries += 1
        return says(status, reason)

    engine.trouble = refuses_one
    await asyncio.wait_for(indexed([bad, *good[1:]], services, outbox), 20)
    (letter,) = outbox.letters
    assert (letter.data.imageId, letter.data.errorCode) == (bad.imageId, "VECTORS_REFUSED")
    assert letter.data.errorMessage == f"The vector engine refuses this: {reason}"
    assert (letter.data.retryAttempt, tries, letter.data.canRetry) == (3, 3, True)
    assert outbox.attempts(StepStatus.COMPLETED) == [1] * len(good)
    assert set(engine.points.values()) == {each.imageId for each in good}
    assert not services.breakers["vectors"].is_open
