"""Real backends that the behaviour suites run on."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from deeplens_streams.testing.vectors import MemoryVectors
from deeplens_streams.vectors import VectorStore
from deeplens_streams.vectors.edge.store import EdgeVectors
from deeplens_streams.vectors.qdrant.store import ServerVectors
from tests.support.s3_server import S3Server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["collection", "shared"])
def shared(request: pytest.FixtureRequest) -> bool:
    """Both tenancies: everything below holds in each."""
    return bool(request.param == "shared")


@pytest.fixture(params=["memory", "edge", "client"])
async def vectors(
    request: pytest.FixtureRequest, tmp_path: Path, shared: bool
) -> AsyncIterator[VectorStore]:
    store: VectorStore
    if request.param == "memory":
        store = MemoryVectors(shared=shared)
    elif request.param == "edge":
        store = EdgeVectors(tmp_path / "vectors", max_open=4, shared=shared)
    else:
        store = ServerVectors(AsyncQdrantClient(":memory:"), shared=shared)
    yield store
    await store.close()
