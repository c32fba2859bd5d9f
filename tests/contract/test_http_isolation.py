"""Tenants never meet: every route, from each to every other, in every way to name things."""

from collections.abc import AsyncIterator, Iterator
from itertools import permutations, product
from pathlib import Path

import pytest
from aiohttp import FormData

from deeplens_streams.web import ROUTES
from deeplens_streams.web.access import INTERNAL
from tests.keys import OPERATOR, ask, tenant_key, uploaded
from tests.photographs import photograph
from tests.web_server import SEARCH, Web, running

#: Names that a careless rewriting would make one.
PICTURES = {"acme-corp": "rocket", "acmecorp": "coffee", "acme--corp": "camera", "a": "astronaut"}


@pytest.fixture(params=["collection", "shared"])
async def served(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Web]:
    async with running(tmp_path, admin_key=OPERATOR, tenancy=request.param) as web:
        web.indexes = True
        yield web


class Tenants:
    """Tenants with a key and a picture each."""

    def __init__(self, keys: dict[str, str], images: dict[str, str]) -> None:
        self.keys, self.images = keys, images

    def pairs(self) -> Iterator[tuple[str, str]]:
        return permutations(self.keys, 2)

    def reveals(self, answer: object, tenant: str) -> bool:
        """Tell whether an answer has anything of a tenant's in it."""
        return self.images[tenant][4:] in str(answer).lower()


@pytest.fixture
async def tenants(served: Web) -> Tenants:
    keys = {name: await tenant_key(served, name) for name in PICTURES}
    images = {name: await uploaded(served, keys[name], PICTURES[name]) for name in PICTURES}
    return Tenants(keys, images)


async def test_no_route_of_an_image_answers_another_tenant(served: Web, tenants: Tenants) -> None:
    routes = [
        route
        for route in ROUTES
        if "{image_id}" in route.path and route.scope not in (None, INTERNAL)
    ]
    tried = 0
    for mine, theirs in tenants.pairs():
        theirs_id = tenants.images[theirs]
        ids = (theirs_id, theirs_id[4:], theirs_id[4:].upper())
        queries = ("", f"?tenantId={theirs}", f"?tenantId={mine}", "?tenantId=")
        for route, image_id, query in product(routes, ids, queries):
            path = route.path.replace("{image_id}", image_id) + query
            status, answer = await ask(served, route.method, path, tenants.keys[mine])
            assert status in (403, 404) or (status == 400 and query == "?tenantId="), path
            assert answer["success"] is False
            assert not tenants.reveals(answer, theirs), path
            tried += 1
    assert tried >= 500
    for name, key in tenants.keys.items():  # and nobody has lost anything
        status, _ = await ask(served, "GET", f"/api/v1/images/{tenants.images[name]}", key)
        assert status == 200


async def search(web: Web, key: str, form: dict[str, str], picture: str | None) -> tuple[int, str]:
    data = FormData(default_to_multipart=True)
    for name, value in form.items():
        data.add_field(name, value)
    if picture:
        data.add_field("queryImage", photograph(picture).data, filename="q.jpg")
    headers = {"X-API-Key": key}
    async with web.client.post(SEARCH, data=data, headers=headers) as response:
        return response.status, await response.text()


async def test_no_search_finds_anything_of_another_tenant(served: Web, tenants: Tenants) -> None:
    everything = {"threshold": "-1", "limit": "100"}
    for mine, theirs in tenants.pairs():
        key, image_id = tenants.keys[mine], tenants.images[theirs]
        for filters in (None, "{}", '{"fileName": "a.jpg"}', f'{{"tags.tenantId": "{theirs}"}}'):
            form = everything | ({"filters": filters} if filters else {})
            status, answer = await search(served, key, form, PICTURES[theirs])
            assert status == 200
            assert not tenants.reveals(answer, theirs)
        assert (await search(served, key, {"tenantId": theirs}, PICTURES[theirs]))[0] == 403
        for given in (image_id, image_id[4:]):
            status, answer = await search(served, key, everything | {"imageId": given}, None)
            assert status == 404
        for filters in (f'{{"tenantId": "{theirs}"}}', '{"imageId": "x"}'):
            status, _ = await search(served, key, {"filters": filters}, PICTURES[theirs])
            assert status == 400, "no filter reaches beyond what clients wrote"


async def test_no_listing_shows_anything_of_another_tenant(served: Web, tenants: Tenants) -> None:
    for mine, theirs in tenants.pairs():
        key = tenants.keys[mine]
        _, answer = await ask(served, "GET", "/api/v1/images?limit=200", key)
        assert [each["imageId"] for each in answer["images"]] == [tenants.images[mine]]
        for path in ("images", "dead-letters", "usage"):
            status, _ = await ask(served, "GET", f"/api/v1/{path}?tenantId={theirs}", key)
            assert status == 403, path
        # A cursor says where to go on, not whose it is.
        _, page = await ask(served, "GET", "/api/v1/images?limit=1", tenants.keys[theirs])
        cursor = page["nextCursor"] or "x"
        status, answer = await ask(served, "GET", f"/api/v1/images?cursor={cursor}", key)
        assert status == 400 or not tenants.reveals(answer, theirs)


@pytest.mark.parametrize(
    "path", ["/tables", "/tables/image_status", "/metrics", "/api/v1/admin/log"]
)
async def test_what_operators_see_is_not_for_tenants(
    served: Web, tenants: Tenants, path: str
) -> None:
    for key in tenants.keys.values():
        assert (await ask(served, "GET", path, key))[0] == 403


@pytest.mark.parametrize(
    "name",
    [
        *("a" * 64, "a" * 200, "Acme", "acme_corp", "acme corp", "acme.", "-acme", "acme-", ""),
        *("аcme", "ａｃｍｅ", "acme\u200b", "acmé", "acme\u0301", "ácme"),  # noqa: RUF001
        *("..", "../acme", "acme/..", "%2e%2e", "..%2facme", "acme\0", "acme\n", "a\\b", "/"),
        *("con.", "nul:", "acme:stream", "COM1", ".system", ".admin", ".nobody", "*", "?"),
    ],
)
async def test_a_name_that_would_need_rewriting_is_refused(served: Web, name: str) -> None:
    path = "/api/v1/admin/tenants"
    status, answer = await ask(served, "POST", path, OPERATOR, {"tenantId": name})
    assert (status, answer["errorCode"]) == (400, "INVALID_TENANT_ID")
    form = FormData(default_to_multipart=True)
    form.add_field("tenantId", name)
    form.add_field("file", photograph("rocket").data, filename="a.jpg")
    headers = {"X-API-Key": OPERATOR}
    async with served.client.post("/api/v1/images/upload", data=form, headers=headers) as response:
        assert response.status == 400
    assert served.registry.tenants() == []


@pytest.mark.parametrize("name", ["con", "nul", "aux", "com1", "index", "failed", "purged", "0"])
async def test_odd_names_are_tenants_of_their_own(served: Web, name: str) -> None:
    """Names that mean something to a file system or to the folders beside tenants."""
    key = await tenant_key(served, name)
    other = await tenant_key(served, "other")
    image_id = await uploaded(served, key)
    assert (await ask(served, "GET", f"/api/v1/images/{image_id}", key))[0] == 200
    assert (await ask(served, "GET", f"/api/v1/images/{image_id}", other))[0] == 404
