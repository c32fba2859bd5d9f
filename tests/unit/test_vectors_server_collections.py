"""What is asked of a Qdrant server about its collections, and what its answers mean.

The answers are worded as the server words them; the server itself is no test dependency.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deeplens_streams.errors import VectorsUnavailable
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.vectors import Collection, SearchFilter, VectorPoint
from deeplens_streams.vectors.qdrant.client import connect
from deeplens_streams.vectors.qdrant.store import ServerVectors
from models.collections import CollectionStatus
from tests.support.qdrant_answers import info

HERE: dict[str, Any] = {"tenant": "acme-corp", "model": "resnet50"}
ONE = np.array([1, 0, 0, 0], dtype=np.float32)
OWN, SHARED = "tenant_acme-corp_resnet50_vectors", "shared_resnet50_vectors"

Serve = Callable[..., Awaitable[ServerVectors]]


def telemetry(name: str) -> dict[str, Any]:
    def local(vectors: int, payloads: int) -> dict[str, Any]:
        return {
            "total_optimized_points": 0,
            "vectors_size_bytes": vectors,
            "payloads_size_bytes": payloads,
        }

    shards = [
        {"id": 0, "local": local(3_000_000, 200_000), "remote": [], "replicate_states": {}},
        {"id": 1, "local": None, "remote": [], "replicate_states": {}},
        {"id": 2, "local": local(700_000, 100_000), "remote": [], "replicate_states": {}},
    ]
    held = [{"id": "another", "shards": []}, {"id": name, "shards": shards}]
    return {"id": "node", "collections": {"number_of_collections": 2, "collections": held}}


@pytest.fixture
async def asked() -> list[tuple[str, Any]]:
    """Each request's method and path, and its body."""
    return []


@pytest.fixture
async def serve(asked: list[tuple[str, Any]]) -> AsyncIterator[Serve]:
    """Start a server that gives each method and path its result, or else 404."""
    opened: list[ServerVectors | TestServer] = []

    async def start(answers: dict[str, Any], *, shared: bool = False) -> ServerVectors:
        async def answer(request: web.Request) -> web.Response:
            name = f"{request.method} {request.path}"
            body = await request.json() if request.can_read_body else None
            asked.append((name, body))
            found = answers.get(name)
            if found is None:
                error = f"Not found: {request.path} doesn't exist!"
                return web.json_response({"status": {"error": error}, "time": 0.0}, status=404)
            result = found(body) if callable(found) else found
            if isinstance(result, web.Response):
                return result
            return web.json_response({"status": "ok", "time": 0.0, "result": result})

        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", answer)
        server = TestServer(app)
        await server.start_server()
        vectors = ServerVectors(connect(str(server.make_url("")), None), shared=shared)
        opened.extend((vectors, server))
        return vectors

    yield start
    for each in opened:
        await each.close()


def own(**more: Any) -> dict[str, Any]:
    return {
        f"GET /collections/{OWN}/exists": {"exists": True},
        f"GET /collections/{OWN}": info(**more),
        f"POST /collections/{OWN}/points/count": {"count": 990},
        "GET /telemetry": telemetry(OWN),
    }


async def described(vectors: ServerVectors) -> Collection:
    found = await vectors.describe(**HERE)
    assert found is not None
    return found


async def test_figures_are_the_servers(serve: Serve) -> None:
    found = await described(await serve(own()))
    assert found == Collection(
        model="resnet50",
        name=OWN,
        status=CollectionStatus.GREEN,
        vectors=990,
        dimension=4,
        indexed=600,
        memory_bytes=4_000_000,
    )


async def test_shared_figures_are_the_tenants_share(
    serve: Serve, asked: list[tuple[str, Any]]
) -> None:
    def count(body: Any) -> dict[str, int]:
        kinds = {key for each in body["filter"]["must"] for key in each}
        return {"count": 0 if "has_id" in kinds else 250}

    answers = {
        f"GET /collections/{SHARED}": info(),
        f"POST /collections/{SHARED}/points/count": count,
        "GET /telemetry": telemetry(SHARED),
    }
    found = await described(await serve(answers, shared=True))
    assert (found.name, found.vectors) == (OWN, 250)
    assert (found.indexed, found.memory_bytes) == (150, 1_000_000)
    owner = {"key": "_tenant", "match": {"value": "acme-corp"}}
    counts = [body for name, body in asked if name.endswith("count")]
    assert [each["filter"]["must"] for each in counts[1:]] == [[owner]] * 2


@pytest.mark.parametrize(
    ("said", "status", "trouble"),
    [
        ({"status": "yellow"}, CollectionStatus.YELLOW, None),
        ({"status": "grey"}, CollectionStatus.YELLOW, None),
        (
            {"status": "red", "optimizer_status": {"error": "no space left"}},
            CollectionStatus.RED,
            "The last optimization failed: no space left",
        ),
    ],
)
async def test_the_servers_states(
    serve: Serve, said: dict[str, Any], status: CollectionStatus, trouble: str | None
) -> None:
    found = await described(await serve(own(**said)))
    assert (found.status, found.trouble) == (status, trouble)


async def test_memory_is_unknown_where_the_server_does_not_tell(serve: Serve) -> None:
    def busy(_body: Any) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "1"})

    without = {"id": "node", "collections": {"number_of_collections": 2}}
    for told in (None, without, {"odd": 1}, busy):
        answers = own() | {"GET /telemetry": told}
        found = await described(await serve(answers))
        assert (found.vectors, found.memory_bytes) == (990, None)


async def test_optimizing_starts_the_servers_optimizers(
    serve: Serve, asked: list[tuple[str, Any]]
) -> None:
    vectors = await serve(own() | {f"PATCH /collections/{OWN}": True})
    assert await vectors.optimize(**HERE)
    assert asked[-1] == (f"PATCH /collections/{OWN}", {"optimizers_config": {}})


async def test_a_shared_collection_has_graphs_and_an_index_for_tenants(
    serve: Serve, asked: list[tuple[str, Any]]
) -> None:
    made = False

    def make(_body: Any) -> bool:
        nonlocal made
        made = True
        return True

    acknowledged = {"operation_id": 1, "status": "completed"}
    answers = {
        f"PUT /collections/{SHARED}": make,
        f"PUT /collections/{SHARED}/index": acknowledged,
        f"PUT /collections/{SHARED}/points": acknowledged,
        "GET /collections": {"collections": []},
    }
    vectors = await serve(answers, shared=True)
    with pytest.raises(VectorsUnavailable):  # the stub never shows it, whatever it was told
        await vectors.create(**HERE, dimension=4)
    assert made
    bodies = [body for name, body in asked if name == f"PUT /collections/{SHARED}"]
    assert bodies[0]["vectors"]["hnsw_config"] == {"m": 0, "payload_m": 16}
    indexes = {
        body["field_name"]: body["field_schema"]
        for name, body in asked
        if name == f"PUT /collections/{SHARED}/index"
    }
    assert indexes["_tenant"] == {"type": "keyword", "is_tenant": True}
    # A server in strict mode refuses a filter by any other.
    assert set(indexes) == {"_tenant", "_terms", "uploadedAt", "fileName"}


async def test_every_call_of_a_shared_collection_names_the_tenant(
    serve: Serve, asked: list[tuple[str, Any]]
) -> None:
    points = f"/collections/{SHARED}/points"
    acknowledged = {"operation_id": 1, "status": "completed"}
    answers = {
        f"GET /collections/{SHARED}": info(),
        f"PUT {points}": acknowledged,
        f"POST {points}/query": {"points": []},
        f"POST {points}/scroll": {"points": []},
        f"POST {points}/count": {"count": 0},
        f"POST {points}/delete": acknowledged,
    }
    vectors = await serve(answers, shared=True)
    image_id = new_image_id()
    await vectors.upsert([VectorPoint(image_id, ONE, {"imageId": image_id})], **HERE)
    where = SearchFilter(equals={"fileName": ["a.jpg"]}, exclude_image_id=image_id)
    await vectors.search(ONE, **HERE, limit=1, threshold=0, where=where)
    await vectors.search(ONE, **HERE, limit=1, threshold=0)
    await vectors.get_vector(**HERE, image_id=image_id)
    await vectors.present([image_id], **HERE)
    await vectors.page(**HERE, limit=5)
    await vectors.count(**HERE)
    await vectors.delete([image_id], **HERE)
    (put,) = (body for name, body in asked if name == f"PUT {points}")
    assert [each["payload"]["_tenant"] for each in put["points"]] == ["acme-corp"]
    filters = [body["filter"] for name, body in asked if name.startswith(f"POST {points}/")]
    assert len(filters) == 7
    owner = {"key": "_tenant", "match": {"value": "acme-corp"}}
    assert all(owner in each["must"] for each in filters)


async def test_deleting_from_a_shared_collection_names_the_tenant(
    serve: Serve, asked: list[tuple[str, Any]]
) -> None:
    acknowledged = {"operation_id": 1, "status": "completed"}
    answers = {
        f"POST /collections/{SHARED}/points/count": {"count": 1},
        f"POST /collections/{SHARED}/points/delete": acknowledged,
    }
    vectors = await serve(answers, shared=True)
    await vectors.delete(["img_x"], **HERE)
    assert await vectors.drop(**HERE)
    owner = {"key": "_tenant", "match": {"value": "acme-corp"}}
    one, everything, marker = (body for name, body in asked if name.endswith("delete"))
    assert owner in one["filter"]["must"]
    assert len(one["filter"]["must"]) == 2
    assert everything["filter"]["must"] == [owner]
    assert len(marker["points"]) == 1
