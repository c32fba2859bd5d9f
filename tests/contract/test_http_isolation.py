"""Tenants never meet: every route, from each to every other, in every way to name things."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import permutations, product
from pathlib import Path

import pytest
from aiohttp import FormData, WSMsgType

from agents import dead_letters as keeper
from deeplens_streams.pipeline.dead_letters import dead_letter, kept_as
from deeplens_streams.pipeline.requests import uploaded_event
from deeplens_streams.web import ROUTES
from deeplens_streams.web.middleware.auth import INTERNAL, Route
from models.status import Step
from models.tenants import Scope
from tests.support.api_keys import OPERATOR, ask, tenant_key, uploaded
from tests.support.photographs import photograph
from tests.support.stage_messages import incoming
from tests.support.web_server import SEARCH, Web, running

HUB = "/hub/processing-status"
#: Names that a careless rewriting would make one.
PICTURES = {"acme-corp": "rocket", "acmecorp": "coffee", "acme--corp": "camera", "a": "astronaut"}


@pytest.fixture(params=["collection", "shared"])
async def served(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Web]:
    async with running(tmp_path, admin_key=OPERATOR, tenancy=request.param) as web:
        web.indexes = True
        yield web


class Tenants:
    """Tenants with a key, a picture and a dead letter each."""

    def __init__(self, keys: dict[str, str], images: dict[str, str], letters: dict[str, str]):
        self.keys, self.images, self.letters = keys, images, letters

    def pairs(self) -> Iterator[tuple[str, str]]:
        return permutations(self.keys, 2)

    def reveals(self, answer: object, tenant: str) -> bool:
        """Tell whether an answer has anything of a tenant's in it."""
        said = str(answer).lower()
        return self.images[tenant][4:] in said or self.letters[tenant] in said


@pytest.fixture
async def tenants(served: Web) -> Tenants:
    keys = {name: await tenant_key(served, name) for name in PICTURES}
    images = {name: await uploaded(served, keys[name], PICTURES[name]) for name in PICTURES}
    letters = {name: await kept_letter(served, images[name]) for name in PICTURES}
    return Tenants(keys, images, letters)


async def kept_letter(served: Web, image_id: str) -> str:
    """Keep a dead letter of an image and return its ID."""
    image = await served.storage.find(image_id)
    assert image is not None
    event, error = uploaded_event(image), RuntimeError("what nobody foresaw")
    message = dead_letter(Step.IMAGE_PROCESSING, event, error, 3, incoming(b""))
    await keeper.process(message.event, served.services)  # a letter
    return kept_as(image.tenantId, message.event.eventId)


def attempts(tenants: Tenants, mine: str, theirs: str) -> Iterator[tuple[Route, str, set[int]]]:
    """Yield every way to ask for what is another tenant's, with how it may be refused."""
    image, letter = tenants.images[theirs], tenants.letters[theirs]
    names = {
        "{image_id}": (image, image[4:], image[4:].upper()),
        "{letter_id}": (letter,),
        # What operators see, under every name that something of the other's has.
        "/tables/{name}/{key}": [f"/tables/image_status/{each}" for each in (image, image[4:])],
    }
    queries = ("", f"?tenantId={theirs}", f"?tenantId={mine}", "?tenantId=")
    for route in ROUTES:
        place = next((each for each in names if each in route.path), None)
        if place is None or route.scope in (None, INTERNAL):
            continue
        for name, query in product(names[place], queries):
            refusals = {403} if route.scope == Scope.ADMIN else {403, 404}
            if query == "?tenantId=":
                refusals.add(400)
            yield route, route.path.replace(place, name) + query, refusals


async def test_no_route_answers_with_anything_of_another_tenant(
    served: Web, tenants: Tenants
) -> None:
    tried: Counter[tuple[str, str]] = Counter()
    for mine, theirs in tenants.pairs():
        key = tenants.keys[mine]
        for route, path, refusals in attempts(tenants, mine, theirs):
            status, answer = await ask(served, route.method, path, key)
            assert status in refusals, (route.method, path, status)
            assert answer["success"] is False
            assert not tenants.reveals(answer, theirs), path
            tried[route.method, route.path] += 1
        tried["GET", HUB] += await watched(served, tenants, mine, theirs)
    letter = "/api/v1/dead-letters/{letter_id}"
    of_letters = {("GET", letter), ("POST", f"{letter}/retry"), ("POST", f"{letter}/discard")}
    assert of_letters | {("GET", HUB), ("GET", "/tables/{name}/{key}")} <= tried.keys()
    assert min(tried.values()) >= len(list(tenants.pairs())) * 4
    assert tried.total() >= 500
    for name, key in tenants.keys.items():  # and nobody has lost anything
        status, _ = await ask(served, "GET", f"/api/v1/images/{tenants.images[name]}", key)
        assert status == 200
        path = f"/api/v1/dead-letters/{tenants.letters[name]}"
        status, answer = await ask(served, "GET", path, key)
        assert (status, answer["deadLetter"]["state"]) == (200, "waiting")


async def watched(served: Web, tenants: Tenants, mine: str, theirs: str) -> int:
    """Try to follow another's picture over the websocket; return how often it was tried."""
    image = tenants.images[theirs]
    endings = {"": 4404, f"&tenantId={theirs}": 4403, f"&tenantId={mine}": 4404, "&tenantId=": 4400}
    for (query, code), name in product(endings.items(), (image, image[4:])):
        path = f"{HUB}?imageId={name}{query}"
        headers = {"X-API-Key": tenants.keys[mine]}
        async with served.client.ws_connect(path, headers=headers) as socket:
            said = [each.data async for each in socket if each.type is WSMsgType.TEXT]
            assert (said, socket.close_code) == ([], code), path
    return 2 * len(endings)


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
        _, answer = await ask(served, "GET", "/api/v1/dead-letters?state=all", key)
        assert [each["letterId"] for each in answer["deadLetters"]] == [tenants.letters[mine]]
        for path in ("images", "dead-letters", "usage"):
            status, _ = await ask(served, "GET", f"/api/v1/{path}?tenantId={theirs}", key)
            assert status == 403, path
        # A cursor says where to go on, not whose it is.
        _, page = await ask(served, "GET", "/api/v1/images?limit=1", tenants.keys[theirs])
        cursor = page["nextCursor"] or "x"
        status, answer = await ask(served, "GET", f"/api/v1/images?cursor={cursor}", key)
        assert status == 400 or not tenants.reveals(answer, theirs)


async def test_operators_reach_letters_of_a_suspended_tenant(served: Web, tenants: Tenants) -> None:
    name, letters = next(iter(PICTURES)), "/api/v1/dead-letters"
    assert (await ask(served, "POST", f"/api/v1/admin/tenants/{name}/suspend", OPERATOR))[0] == 200
    status, answer = await ask(served, "GET", letters, tenants.keys[name])
    assert (status, answer["errorCode"]) == (403, "TENANT_SUSPENDED")
    letter_id = tenants.letters[name]
    for query in ("", f"?tenantId={name}"):
        _, answer = await ask(served, "GET", f"{letters}{query}", OPERATOR)
        assert letter_id in {each["letterId"] for each in answer["deadLetters"]}
    body = {"reason": "a test"}
    status, _ = await ask(served, "POST", f"{letters}/{letter_id}/discard", OPERATOR, body)
    assert status == 200


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
