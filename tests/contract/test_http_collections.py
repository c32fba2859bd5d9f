"""Collections over HTTP, field by field, on memory and on Edge, in both tenancies."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.client import ClientSession
from yarl import URL

from deeplens_streams.testing.vectors import MemoryVectors
from deeplens_streams.vectors import VectorStore
from deeplens_streams.vectors.edge import optimizer
from deeplens_streams.vectors.edge.store import EdgeVectors
from tests.support.photographs import photograph
from tests.support.web_server import SEARCH, TENANT, Web, running, until

COLLECTIONS = "/api/v1/admin/collections"

ERROR = {"success": False, "message": str, "errorCode": str}
MADE = {
    "success": bool,
    "message": str,
    "collectionName": str,
    "vectorCount": int,
    "alreadyExisted": bool,
    "errorCode": None,
}
FIGURES = {
    "success": bool,
    "message": None,
    "collectionName": str,
    "vectorCount": int,
    "vectorDimension": int,
    "status": str,
    "indexedVectorCount": int,
    "memoryUsageMB": float,
    "errorCode": None,
}


@pytest.fixture(params=["memory", "memory-shared", "edge", "edge-shared"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Web]:
    engine, _, shared = request.param.partition("-")
    vectors: VectorStore = (
        MemoryVectors(shared=bool(shared))
        if engine == "memory"
        else EdgeVectors(tmp_path / "vectors", max_open=4, shared=bool(shared))
    )
    parts: dict[str, Any] = {"vectors": vectors, "storage_url": None}
    async with running(tmp_path, **parts, tenant_max_collections=3) as web:
        web.indexes = web.purges = True
        yield web
    await vectors.close()


async def ask(web: Web, method: str, path: str = "", **body: Any) -> tuple[int, dict[str, Any]]:
    options: dict[str, Any] = {"json": body} if body else {}
    async with web.client.request(method, COLLECTIONS + path, **options) as response:
        return response.status, await response.json()


async def make(web: Web, **more: Any) -> tuple[int, dict[str, Any]]:
    model = web.model
    body: dict[str, Any] = {
        "tenantId": TENANT,
        "modelName": model.name,
        "vectorDimension": model.dimension,
    }
    return await ask(web, "POST", **(body | more))


def check_fields(answer: dict[str, Any], fields: dict[str, Any]) -> None:
    assert set(answer) == set(fields)
    for name, kind in fields.items():
        value = answer[name]
        assert value is None if kind is None else isinstance(value, kind), name


async def test_a_collection_from_the_first_to_the_last(served: Web) -> None:
    name, model = f"tenant_{TENANT}_{served.model.name}_vectors", served.model.name
    status, made = await make(served)
    assert status == 200
    check_fields(made, MADE)
    assert (made["collectionName"], made["vectorCount"], made["alreadyExisted"]) == (name, 0, False)

    image_id = (await served.upload(photograph("rocket").data))["imageId"]
    await until(lambda: served.rows.held.get(image_id))
    status, again = await make(served)
    assert (status, again["vectorCount"], again["alreadyExisted"]) == (200, 1, True)

    status, listed = await ask(served, "GET", f"/{TENANT}")
    assert status == 200
    assert listed["tenantId"] == TENANT
    assert listed["collections"] == [
        {
            "modelName": model,
            "collectionName": name,
            "vectorCount": 1,
            "vectorDimension": served.model.dimension,
            "status": "green",
        }
    ]

    status, found = await ask(served, "GET", f"/{TENANT}/{model}")
    assert status == 200
    check_fields(found, FIGURES)
    assert (found["collectionName"], found["vectorCount"], found["status"]) == (name, 1, "green")
    assert found["vectorDimension"] == served.model.dimension
    assert found["indexedVectorCount"] == 0
    assert found["memoryUsageMB"] > 0

    status, begun = await ask(served, "POST", f"/{TENANT}/{model}/optimize")
    assert status == 202
    check_fields(begun, {"success": bool, "message": str, "errorCode": None})

    status, gone = await ask(served, "DELETE", f"/{TENANT}/{model}")
    assert status == 200
    check_fields(gone, {"success": bool, "message": str, "errorCode": None})
    assert (await ask(served, "GET", f"/{TENANT}"))[1]["collections"] == []


@pytest.mark.parametrize("served", ["edge", "edge-shared"], indirect=True)
async def test_a_collection_that_is_optimized_is_yellow(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = served.vectors
    assert isinstance(engine, EdgeVectors)
    hold = asyncio.Event()

    async def held(_copy: Path) -> bool:
        await hold.wait()
        return False

    monkeypatch.setattr(optimizer, "_optimized", held)
    await make(served)
    path = f"/{TENANT}/{served.model.name}"
    assert (await ask(served, "POST", f"{path}/optimize"))[0] == 202
    assert (await ask(served, "GET", path))[1]["status"] == "yellow"
    hold.set()
    await until(lambda: not engine._optimizing._tasks)
    assert (await ask(served, "GET", path))[1]["status"] == "green"


async def test_what_is_not_there(served: Web) -> None:
    path = f"/{TENANT}/{served.model.name}"
    for method, where, blank in (
        ("GET", path, FIGURES),
        ("DELETE", path, ERROR),
        ("POST", f"{path}/optimize", ERROR),
    ):
        status, answer = await ask(served, method, where)
        assert (status, answer["errorCode"]) == (404, "COLLECTION_NOT_FOUND")
        assert set(answer) == set(blank)
        assert answer["success"] is False
        assert f"tenant_{TENANT}_" in answer["message"]
    status, listed = await ask(served, "GET", f"/{TENANT}")
    assert (status, listed["collections"]) == (200, [])


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("tenantId", None, "INVALID_TENANT_ID"),
        ("tenantId", 7, "INVALID_TENANT_ID"),
        ("tenantId", "a_b", "INVALID_TENANT_ID"),
        ("modelName", None, "BAD_REQUEST"),
        ("modelName", ["resnet50"], "BAD_REQUEST"),
        ("modelName", "a_b", "UNKNOWN_MODEL"),
        ("modelName", "../x", "UNKNOWN_MODEL"),
        ("vectorDimension", None, "BAD_REQUEST"),
        ("vectorDimension", 0, "BAD_REQUEST"),
        ("vectorDimension", 4097, "BAD_REQUEST"),
        ("vectorDimension", True, "BAD_REQUEST"),
        ("vectorDimension", "12", "BAD_REQUEST"),
        ("vectorDimension", 12.0, "BAD_REQUEST"),
    ],
)
async def test_a_field_that_cannot_be(served: Web, field: str, value: Any, code: str) -> None:
    body = {"modelName": "other", "vectorDimension": 8, field: value}
    status, answer = await make(served, **body)
    assert (status, answer["errorCode"]) == (400, code)
    assert answer == {**dict.fromkeys(MADE), "success": False} | {
        "message": answer["message"],
        "errorCode": code,
    }


@pytest.mark.parametrize("dimension", [1, 4096])
async def test_dimensions_at_both_ends(served: Web, dimension: int) -> None:
    status, answer = await make(served, modelName="other", vectorDimension=dimension)
    assert (status, answer["success"]) == (200, True)


async def test_another_dimension_is_a_conflict(served: Web) -> None:
    await make(served, modelName="other", vectorDimension=8)
    status, answer = await make(served, modelName="other", vectorDimension=9)
    assert (status, answer["errorCode"]) == (409, "DIMENSION_CONFLICT")
    assert "8 numbers, not 9" in answer["message"]
    # Of the system's own model nobody makes one that its vectors would not fit.
    status, answer = await make(served, vectorDimension=served.model.dimension + 1)
    assert (status, answer["errorCode"]) == (409, "DIMENSION_CONFLICT")
    assert served.model.name in answer["message"]


async def test_a_tenant_has_so_many_collections(served: Web) -> None:
    for each in range(3):
        assert (await make(served, modelName=f"m{each}", vectorDimension=8))[0] == 200
    async with served.client.post(
        COLLECTIONS, json={"tenantId": TENANT, "modelName": "m3", "vectorDimension": 8}
    ) as response:
        answer = await response.json()
        assert response.status == 429
        assert int(response.headers["Retry-After"]) > 0
    assert answer["errorCode"] == "COLLECTION_LIMIT"
    assert "3 of up to 3" in answer["message"]
    assert (await make(served, modelName="m0", vectorDimension=8))[1]["alreadyExisted"]
    other = await make(served, tenantId="other", modelName="m0", vectorDimension=8)
    assert other[0] == 200


async def test_a_body_that_is_no_object(served: Web) -> None:
    for data in (b"[]", b"{", b"\xff", b'"x"'):
        async with served.client.post(COLLECTIONS, data=data) as response:
            answer = await response.json()
            assert (response.status, answer["errorCode"]) == (400, "BAD_REQUEST")


async def test_a_worker_without_vectors_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, vectors=None) as web:
        path = f"/{TENANT}/resnet50"
        answers = [
            await make(web),
            await ask(web, "GET", f"/{TENANT}"),
            await ask(web, "GET", path),
            await ask(web, "DELETE", path),
            await ask(web, "POST", f"{path}/optimize"),
        ]
        for status, answer in answers:
            assert (status, answer["errorCode"]) == (503, "VECTORS_UNAVAILABLE")
            assert "index role" in answer["message"]


# Names that look alike, and names that lead elsewhere ----------------------------------------

TENANTS = [
    *("acme-corp", "acmecorp", "acme--corp", "acme", "con", "nul", "com1", "aux", "a" * 63),
    *(
        "xn--acme-9ta",
        "0",
        "index",
        "failed",
        "shared",
        "tenant",
        "-acme",
        "acme-",
        "a" * 64,
        "a" * 200,
        "Acme",
        "ACME-CORP",
        "acme_corp",
    ),
    *("\uff41cme", "\u0430cme", "acme\u200b", "acm\u00e9", "acme\u0301", "\u2170", "\u0660"),
    *("..", ".", "../acme", "..\\acme", "acme/..", "%2e%2e", "%2e%2e%2facme", "acme%00", "acme\0"),
    *("con.", "nul.txt", "acme ", " acme", "acme.", "c:", "c:\\acme", "~", "*", "", "\n", "acme\n"),
]


async def test_every_name_is_a_tenant_of_its_own_or_refused(served: Web, tmp_path: Path) -> None:
    """Names, as fields and in addresses, on disk and in vectors."""
    kept = []
    for tenant in TENANTS:
        status, answer = await make(served, tenantId=tenant)
        if status == 200:
            kept.append(tenant)
        else:
            assert (status, answer["errorCode"]) == (400, "INVALID_TENANT_ID")
            assert await raw(served, tenant) == (400 if tenant else 404)
    assert kept == TENANTS[: len(kept)]
    assert len(kept) == 15
    names = [f"tenant_{tenant}_{served.model.name}_vectors" for tenant in kept]
    pictures = {}
    for tenant in kept:
        uploaded = await served.upload(photograph("rocket").data, tenantId=tenant)
        assert uploaded["duplicateOf"] is None  # the same bytes of another tenant are no duplicate
        pictures[tenant] = uploaded["imageId"]
    await until(lambda: set(pictures.values()) <= set(served.rows.held))
    for tenant, name in zip(kept, names, strict=True):
        listed = (await ask(served, "GET", f"/{tenant}"))[1]["collections"]
        assert [(each["collectionName"], each["vectorCount"]) for each in listed] == [(name, 1)]
        form = {"tenantId": tenant, "imageId": pictures[tenant], "threshold": "-1"}
        async with served.client.post(SEARCH, data=form) as response:
            assert (await response.json())["results"] == []  # its own picture is left out
    assert set(await served.storage.tenants()) == {*kept}
    assert len({name.casefold() for name in names}) == len(names)
    assert folders(tmp_path) <= {"vectors", "state", "images"}
    # "index" and "failed" hold pointers, too, and ".admin" what operators did.
    assert folders(tmp_path / "images") - {".admin"} == {*kept}
    if isinstance(served.vectors, EdgeVectors):
        shared = {f"shared_{served.model.name}_vectors"}
        assert folders(tmp_path / "vectors") in ({*names}, shared)


def folders(below: Path) -> set[str]:
    return {each.name for each in below.iterdir() if each.is_dir()}


async def raw(web: Web, tenant: str) -> int:
    """Ask for a tenant's collections by an address that is sent as it is."""
    address = "".join(f"%{byte:02x}" for byte in tenant.encode())
    base = str(web.client.make_url(COLLECTIONS))
    async with (
        ClientSession() as session,
        session.get(URL(f"{base}/{address}", encoded=True)) as response,
    ):
        answer = json.loads(await response.read())
        assert answer["success"] is False
        return response.status
