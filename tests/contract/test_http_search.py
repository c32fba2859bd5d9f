"""Searches: what is found, by whom, and every refusal."""

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData

from deeplens_streams.client import models
from deeplens_streams.errors import ExtractorUnavailable, VectorsUnavailable
from deeplens_streams.testing.features import MemoryFeatures
from deeplens_streams.testing.vectors import MemoryVectors
from tests.support.photographs import cropped_copy, photograph
from tests.support.web_server import SEARCH, TENANT, Web, noise_jpeg, running, until

NAMES = ("rocket", "coffee", "chelsea", "china")
ROCKET = photograph("rocket").data


@pytest.fixture(params=["collection", "shared"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Web]:
    limits = {"max_upload_bytes": 3_000_000, "max_pixels": 4_000_000}
    async with running(tmp_path, tenancy=request.param, **limits) as found:
        yield found


async def ask(
    served: Web, picture: bytes | None = None, expected: int = 200, **fields: Any
) -> dict[str, Any]:
    form = FormData()
    form.add_field("note", b"x", filename="note.txt")
    for key, value in ({"tenantId": TENANT} | fields).items():
        form.add_field(key, str(value))
    if picture is not None:
        form.add_field("queryImage", io.BytesIO(picture), filename="q.jpg")
    async with served.client.post(SEARCH, data=form) as response:
        answer: dict[str, Any] = await response.json()
    assert response.status == expected, answer
    assert answer.keys() == models.SearchResults.blank().keys()
    if expected != 200:
        assert answer["success"] is False
        assert answer["results"] == []
        assert answer["timestamp"] is None
    assert served.spooled == []
    return answer


async def stored(served: Web, **fields: str) -> dict[str, str]:
    ids = {}
    for name in NAMES:
        ids[name] = (await served.upload(photograph(name).data, f"{name}.jpg", **fields))["imageId"]
        await served.index(ids[name])
    return ids


async def test_by_a_picture(served: Web) -> None:
    ids = await stored(served)
    for name in NAMES:
        answer = await ask(served, cropped_copy(photograph(name).data), threshold=-1, limit=3)
        assert answer["success"] is True
        assert answer["resultCount"] == len(answer["results"]) == 3
        assert answer["modelName"] == served.model.name
        assert answer["queryProcessingTimeMs"] > 0
        assert served.model.warning in answer["message"]
        hit = answer["results"][0]
        assert hit.keys() == {
            "imageId",
            "similarityScore",
            "fileName",
            "thumbnailUrl",
            "uploadedAt",
            "metadata",
        }
        assert hit["imageId"] == ids[name]
        assert hit["fileName"] == f"{name}.jpg"
        assert hit["thumbnailUrl"] == f"/api/v1/images/{ids[name]}/thumbnail"
        assert hit["metadata"]["width"] > 0
        scores = [each["similarityScore"] for each in answer["results"]]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("told", "is_named"),
    [
        ({"hasThumbnail": True}, True),
        ({"hasThumbnail": False}, False),
        # Of versions before.
        ({"thumbnailUrl": "/pictures/1/small"}, True),
        ({"thumbnailUrl": None}, False),
        ({}, True),
    ],
)
async def test_a_thumbnail_s_address_is_made_for_the_answer(
    served: Web, told: dict[str, Any], is_named: bool
) -> None:
    image_id = (await served.upload(ROCKET))["imageId"]
    await served.index(image_id)
    assert served.vectors is not None
    place = {"tenant": TENANT, "model": served.model.name}
    point = await served.vectors.get_point(**place, image_id=image_id)
    assert point is not None
    old = {key: value for key, value in point.payload.items() if key != "hasThumbnail"}
    await served.vectors.upsert([replace(point, payload=old | told)], **place)
    (hit,) = (await ask(served, ROCKET, threshold=-1))["results"]
    assert hit["thumbnailUrl"] == (f"/api/v1/images/{image_id}/thumbnail" if is_named else None)


async def test_by_a_stored_image(served: Web) -> None:
    ids = await stored(served)
    copy = (await served.upload(cropped_copy(ROCKET)))["imageId"]
    await served.index(copy)
    answer = await ask(served, imageId=ids["rocket"], threshold=-1)
    found = [hit["imageId"] for hit in answer["results"]]
    assert found[0] == copy
    assert ids["rocket"] not in found


async def test_another_tenant_finds_nothing(served: Web) -> None:
    ids = await stored(served)
    answer = await ask(served, ROCKET, tenantId="other", threshold=-1)
    assert answer["success"] is True
    assert answer["results"] == []
    answer = await ask(served, imageId=ids["rocket"], tenantId="other", expected=404)
    assert answer["errorCode"] == "IMAGE_NOT_FOUND"


async def test_filters(served: Web) -> None:
    await stored(served, **{"tags[set]": "first"})
    china = await served.upload(photograph("flower").data, "f.jpg", **{"tags[set]": "second"})
    await served.index(china["imageId"])

    async def names(filters: dict[str, Any]) -> set[str]:
        answer = await ask(served, ROCKET, threshold=-1, filters=json.dumps(filters))
        return {hit["fileName"] for hit in answer["results"]}

    assert await names({"tags.set": "second"}) == {"f.jpg"}
    assert await names({"fileName": ["rocket.jpg", "china.jpg"]}) == {"rocket.jpg", "china.jpg"}
    assert await names({"contentType": "image/png"}) == {"chelsea.jpg", "coffee.jpg"}
    assert await names({"uploadedAt": {"gte": china["timestamp"]}}) == {"f.jpg"}
    assert "f.jpg" not in await names({"uploadedAt": {"lt": china["timestamp"]}})
    assert await names({"uploadedBy": "nobody"}) == set()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tenantId": "A"}, "INVALID_TENANT_ID"),
        ({"limit": 0}, "BAD_REQUEST"),
        ({"limit": 101}, "BAD_REQUEST"),
        ({"limit": "1e1"}, "BAD_REQUEST"),
        ({"threshold": 1.1}, "BAD_REQUEST"),
        ({"threshold": "nan"}, "BAD_REQUEST"),
        ({"threshold": "x"}, "BAD_REQUEST"),
        ({"modelName": "clip"}, "UNKNOWN_MODEL"),
        ({"imageId": str(uuid.uuid4())}, "BAD_REQUEST"),
        ({"filters": "x"}, "BAD_REQUEST"),
        ({"filters": "[]"}, "BAD_REQUEST"),
        ({"filters": '{"checksum": "x"}'}, "BAD_REQUEST"),
        ({"filters": '{"fileName": 5}'}, "BAD_REQUEST"),
        ({"filters": '{"fileName": []}'}, "BAD_REQUEST"),
        ({"filters": '{"tags.a.b": "x"}'}, "BAD_REQUEST"),
        ({"filters": '{"uploadedAt": "2026-01-01"}'}, "BAD_REQUEST"),
        ({"filters": '{"uploadedAt": {"gt": "2026-01-01"}}'}, "BAD_REQUEST"),
        ({"filters": '{"uploadedAt": {"lt": "yesterday"}}'}, "BAD_REQUEST"),
    ],
)
async def test_bad_fields(served: Web, fields: dict[str, Any], code: str) -> None:
    assert (await ask(served, ROCKET, 400, **fields))["errorCode"] == code


async def test_neither_picture_nor_image(served: Web) -> None:
    assert (await ask(served, None, 400))["errorCode"] == "BAD_REQUEST"
    assert (await ask(served, b"", 400))["errorCode"] == "BAD_REQUEST"
    assert (await ask(served, None, 400, imageId="x"))["errorCode"] == "INVALID_IMAGE_ID"


async def test_pictures_that_are_refused(served: Web) -> None:
    assert (await ask(served, noise_jpeg(3_000_001), 413))["errorCode"] == "TOO_LARGE"
    assert (await ask(served, b"<svg/>", 415))["errorCode"] == "UNSUPPORTED_FORMAT"
    damaged = photograph("chelsea").data[:30_000]
    assert (await ask(served, damaged, 400))["errorCode"] == "UNDECODABLE_IMAGE"


async def test_images_that_cannot_be_searched_by(served: Web) -> None:
    answer = await ask(served, imageId=str(uuid.uuid4()), expected=404)
    assert answer["errorCode"] == "IMAGE_NOT_FOUND"
    image_id = (await served.upload(ROCKET))["imageId"]
    answer = await ask(served, imageId=image_id, expected=404)
    assert answer["errorCode"] == "IMAGE_NOT_SEARCHABLE"


async def test_a_worker_without_the_engine(tmp_path: Path) -> None:
    async with running(tmp_path, vectors=None) as served:
        answer = await ask(served, ROCKET, 503)
        assert answer["errorCode"] == "VECTORS_UNAVAILABLE"
        assert "DEEPLENS_QDRANT_URL" in answer["message"]
    async with running(tmp_path, features=None) as served:
        assert (await ask(served, ROCKET, 503))["errorCode"] == "EXTRACTOR_UNAVAILABLE"


async def test_searches_that_wait_for_the_model_are_bounded(tmp_path: Path) -> None:
    features, go_on, waiting = MemoryFeatures(), asyncio.Event(), 0
    extract = features.extract

    async def stalled(*args: Any, **options: Any) -> Any:
        nonlocal waiting
        waiting += 1
        await go_on.wait()
        return await extract(*args, **options)

    async def by(**fields: str | bytes) -> tuple[int, str | None]:
        form = FormData({"tenantId": TENANT}, default_to_multipart=True)
        for name, value in fields.items():
            form.add_field(name, value, filename="q.jpg" if name == "queryImage" else None)
        async with web.client.post(SEARCH, data=form) as response:
            if response.status == 429:
                assert int(response.headers["Retry-After"]) > 0
            return response.status, (await response.json())["errorCode"]

    async with running(tmp_path, features=features, max_uploads=2) as web:
        image_id = (await web.upload(ROCKET))["imageId"]
        await web.index(image_id)
        features.extract = stalled  # type: ignore[method-assign] # only this one's
        large = noise_jpeg(1_000_000)
        searches = [asyncio.create_task(by(queryImage=large)) for _ in range(2)]
        await until(lambda: waiting == 2)
        async with asyncio.timeout(5):
            assert await by(queryImage=large) == (429, "TOO_MANY_REQUESTS")
        assert len(web.spooled) == 2
        # What needs no model goes on.
        assert await by(imageId=image_id) == (200, None)
        await web.upload(photograph("coffee").data)
        go_on.set()
        assert await asyncio.gather(*searches) == [(200, None)] * 2
        assert await by(queryImage=large) == (200, None)


class AwayVectors(MemoryVectors):
    async def search(self, *_: Any, **__: Any) -> Any:
        raise VectorsUnavailable


class AwayFeatures(MemoryFeatures):
    async def extract(self, *_: Any, **__: Any) -> Any:
        raise ExtractorUnavailable


async def test_dependencies_that_are_away(tmp_path: Path) -> None:
    async with running(tmp_path, vectors=AwayVectors()) as served:
        assert (await ask(served, ROCKET, 503))["errorCode"] == "VECTORS_UNAVAILABLE"
    async with running(tmp_path, features=AwayFeatures()) as served:
        assert (await ask(served, ROCKET, 503))["errorCode"] == "EXTRACTOR_UNAVAILABLE"
