"""How a Qdrant server's answers become this system's errors, over real HTTP.

The answers are worded as the server words them; the server itself is no test dependency.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deeplens_streams.errors import (
    DeepLensError,
    DimensionMismatch,
    VectorsRefused,
    VectorsUnavailable,
)
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.vectors import VectorPoint
from deeplens_streams.vectors.qdrant.client import CollectionExists, CollectionMissing, connect
from deeplens_streams.vectors.qdrant.store import ServerVectors

HERE: dict[str, Any] = {"tenant": "acme-corp", "model": "resnet50"}
COLLECTION = "GET tenant_acme-corp_resnet50_vectors"
ONE = np.array([1, 0, 0, 0], dtype=np.float32)

Serve = Callable[..., Awaitable[ServerVectors]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server that gives each method and last part of a path its status and error."""
    opened: list[ServerVectors | TestServer] = []

    async def start(answers: dict[str, tuple[int, str]], **headers: str) -> ServerVectors:
        async def answer(request: web.Request) -> web.Response:
            name = f"{request.method} {request.path.rpartition('/')[2]}"
            status, error = answers[name]
            said = {"status": {"error": error}, "time": 0.0}
            return web.json_response(said, status=status, headers=headers)

        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", answer)
        server = TestServer(app)
        await server.start_server()
        vectors = ServerVectors(connect(str(server.make_url("")), None))
        opened.extend((vectors, server))
        return vectors

    yield start
    for each in opened:
        await each.close()


async def test_a_missing_collection_is_empty(serve: Serve) -> None:
    name = "tenant_acme-corp_resnet50_vectors"
    missing = (404, f"Not found: Collection `{name}` doesn't exist!")
    vectors = await serve(
        dict.fromkeys((f"GET {name}", "POST count", "POST scroll", "POST delete"), missing)
    )
    assert await vectors.search(ONE, **HERE, limit=1, threshold=0) == []
    assert await vectors.count(**HERE) == 0
    assert await vectors.get_vector(**HERE, image_id=new_image_id()) is None
    await vectors.delete([new_image_id()], **HERE)


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (500, "Service internal error", VectorsUnavailable),
        (503, "Raft leader is not known", VectorsUnavailable),
        (401, "Must provide an API key", VectorsUnavailable),
        (403, "Global manage access is required", VectorsUnavailable),
        (408, "Took too long", VectorsUnavailable),
        (429, "Rate limit exceeded", VectorsUnavailable),
        (
            400,
            "Wrong input: Vector dimension error: expected dim: 4, got 3",
            DimensionMismatch,
        ),
    ],
)
async def test_trouble_is_never_an_empty_success(
    serve: Serve, status: int, text: str, expected: type[DeepLensError]
) -> None:
    trouble = (status, text)
    vectors = await serve({COLLECTION: trouble, "POST count": trouble, "GET collections": trouble})
    for call in calls(vectors):
        with pytest.raises(expected) as caught:
            await call
        assert text not in caught.value.message
        if expected is VectorsUnavailable:
            assert str(caught.value.__cause__) == f"HTTP {status}: {text}"
            assert not isinstance(caught.value, CollectionMissing | CollectionExists)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_the_server_does_not_take_is_no_outage(serve: Serve, status: int) -> None:
    trouble = (status, "Validation error: " + "x" * 500)
    vectors = await serve({COLLECTION: trouble, "POST count": trouble, "GET collections": trouble})
    for call in calls(vectors):
        with pytest.raises(VectorsRefused) as caught:
            await call
        assert caught.value.message.startswith("The vector engine refuses this: Validation error")
        assert len(caught.value.message) < 350
        assert caught.value.retryable


@pytest.mark.parametrize(("given", "kept"), [("7", 7), ("0", 1), ("tomorrow", None)])
async def test_a_server_that_is_busy_says_for_how_long(
    serve: Serve, given: str, kept: int | None
) -> None:
    trouble = (429, "Rate limit exceeded")
    answers = {COLLECTION: trouble, "POST count": trouble, "GET collections": trouble}
    vectors = await serve(answers, **{"Retry-After": given})
    for call in calls(vectors):
        with pytest.raises(VectorsUnavailable) as caught:
            await call
        assert caught.value.retry_after == kept


def calls(vectors: ServerVectors) -> Iterator[Coroutine[Any, Any, object]]:
    yield vectors.search(ONE, **HERE, limit=1, threshold=0)
    yield vectors.upsert([VectorPoint("img_x", ONE, {"imageId": "img_x"})], **HERE)
    yield vectors.count(**HERE)
    yield vectors.ping()
