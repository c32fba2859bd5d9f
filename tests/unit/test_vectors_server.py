"""How a Qdrant server's answers become this system's errors, over real HTTP.

The answers are worded as the server words them; the server itself is no test dependency.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deeplens_streams.errors import DeepLensError, DimensionMismatch, VectorsUnavailable
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.vectors import VectorPoint
from deeplens_streams.vectors.client import connect
from deeplens_streams.vectors.server import ServerVectors

HERE = {"tenant": "acme-corp", "model": "resnet50"}
ONE = np.array([1, 0, 0, 0], dtype=np.float32)

Serve = Callable[[dict[str, tuple[int, str]]], Awaitable[ServerVectors]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server that gives each method and last part of a path its status and error."""
    opened: list[ServerVectors | TestServer] = []

    async def start(answers: dict[str, tuple[int, str]]) -> ServerVectors:
        async def answer(request: web.Request) -> web.Response:
            name = f"{request.method} {request.path.rpartition('/')[2]}"
            status, error = answers[name]
            return web.json_response({"status": {"error": error}, "time": 0.0}, status=status)

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
    name = "GET tenant_acme-corp_resnet50_vectors"
    trouble = (status, text)
    vectors = await serve({name: trouble, "POST count": trouble, "GET collections": trouble})
    for call in (
        vectors.search(ONE, **HERE, limit=1, threshold=0),
        vectors.upsert([VectorPoint("img_x", ONE, {"imageId": "img_x"})], **HERE),
        vectors.count(**HERE),
        vectors.ping(),
    ):
        with pytest.raises(expected) as caught:
            await call
        assert text not in caught.value.message
