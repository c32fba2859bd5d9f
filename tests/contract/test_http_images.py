"""Metadata, bytes, thumbnails and the listing; and what every answer has."""

import itertools
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deeplens_streams.client import models
from deeplens_streams.storage import ListPage
from tests.support.odd_headers import small
from tests.support.photographs import photograph
from tests.support.web_server import TENANT, Web, running

ROCKET = photograph("rocket").data
#: As browsers ask for a page.
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path) as found:
        yield found


async def get(served: Web, path: str, expected: int = 200) -> dict[str, Any]:
    async with served.client.get(path) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == expected, answer
        return answer


async def test_metadata(served: Web) -> None:
    image_id = (await served.upload(ROCKET, "r.jpg", uploadedBy="ann"))["imageId"]
    answer = await get(served, f"/api/v1/images/{image_id}?tenantId={TENANT}")
    assert answer.keys() == models.ImageAnswer.blank().keys()
    assert answer["imageId"] == image_id
    assert answer["fileName"] == "r.jpg"
    assert answer["fileSize"] == len(ROCKET)
    assert answer["contentType"] == "image/jpeg"
    assert answer["uploadedBy"] == "ann"
    assert answer["metadata"]["width"] == 640
    assert answer["status"] == "uploaded"
    await served.index(image_id)
    assert (await get(served, f"/api/v1/images/{image_id}"))["status"] == "completed"
    served.rows.moving = True
    assert (await get(served, f"/api/v1/images/{image_id}"))["status"] is None


@pytest.mark.parametrize("rest", ["", "/content", "/thumbnail"])
async def test_another_tenants_image_is_unknown(served: Web, rest: str) -> None:
    image_id = (await served.upload(ROCKET))["imageId"]
    await served.index(image_id)
    answer = await get(served, f"/api/v1/images/{image_id}{rest}?tenantId=other", 404)
    assert answer["errorCode"] == "IMAGE_NOT_FOUND"
    await get(served, f"/api/v1/images/{image_id}{rest}?tenantId=A", 400)
    await get(served, f"/api/v1/images/{uuid.uuid4()}{rest}", 404)
    await get(served, f"/api/v1/images/x{rest}", 400)


@pytest.mark.parametrize("rest", ["", "/content", "/thumbnail"])
async def test_a_suspended_tenant_s_image_without_keys(served: Web, rest: str) -> None:
    path = f"/api/v1/admin/tenants/{TENANT}"
    async with served.client.post("/api/v1/admin/tenants", json={"tenantId": TENANT}) as response:
        assert response.status == 201
    image_id, other_id, gone_id = [
        (await served.upload(photograph(name).data, tenantId=tenant))["imageId"]
        for name, tenant in (("rocket", TENANT), ("rocket", "other"), ("coffee", TENANT))
    ]
    for each in (image_id, other_id):
        await served.index(each)
    async with served.client.delete(f"/api/v1/images/{gone_id}") as response:
        assert response.status in {200, 202}
    async with served.client.post(f"{path}/suspend") as response:
        assert response.status == 200
    for query in ("", f"?tenantId={TENANT}"):
        answer = await get(served, f"/api/v1/images/{image_id}{rest}{query}", 403)
        assert answer["errorCode"] == "TENANT_SUSPENDED"
        for each in (image_id, gone_id):
            async with served.client.delete(f"/api/v1/images/{each}{query}") as response:
                assert response.status == 403
    async with served.client.get(f"/api/v1/images/{other_id}{rest}") as response:
        assert response.status == 200
    async with served.client.post(f"{path}/resume") as response:
        assert response.status == 200
    async with served.client.get(f"/api/v1/images/{image_id}{rest}") as response:
        assert response.status == 200


@pytest.mark.parametrize(("bare", "media_type"), [(False, "image/jp2"), (True, "image/j2c")])
async def test_a_jpeg_2000_comes_back_as_what_it_is(
    served: Web, bare: bool, media_type: str
) -> None:
    data = small("JPEG2000", no_jp2=bare)
    image_id = (await served.upload(data))["imageId"]
    await served.index(image_id)
    async with served.client.get(f"/api/v1/images/{image_id}") as response:
        answer = await response.json()
    assert (answer["contentType"], answer["metadata"]["format"]) == (media_type, "JPEG2000")
    async with served.client.get(f"/api/v1/images/{image_id}/content") as response:
        assert response.headers["Content-Type"] == media_type
        assert await response.read() == data


async def test_content(served: Web) -> None:
    image_id = (await served.upload(ROCKET))["imageId"]
    url = f"/api/v1/images/{image_id}/content"
    async with served.client.get(url) as response:
        assert await response.read() == ROCKET
        assert response.status == 200
        assert response.headers["Content-Type"] == "image/jpeg"
        assert response.headers["Content-Length"] == str(len(ROCKET))
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
        etag = response.headers["ETag"]
    async with served.client.get(url, headers={"If-None-Match": f'"x", W/{etag}'}) as response:
        assert (response.status, await response.read()) == (304, b"")
    async with served.client.head(url) as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == str(len(ROCKET))
    async with served.client.head(url, headers={"Range": "bytes=0-9"}) as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == str(len(ROCKET))
        assert "Content-Range" not in response.headers


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=5-999999999", 5, None),
        ("bytes=-999999999", 0, None),
    ],
)
async def test_a_range(served: Web, asked: str, start: int, end: int | None) -> None:
    image_id = (await served.upload(ROCKET))["imageId"]
    url = f"/api/v1/images/{image_id}/content"
    async with served.client.get(url, headers={"Range": asked}) as response:
        assert response.status == 206
        wanted = ROCKET[start:end]
        assert await response.read() == wanted
        first = start % len(ROCKET)
        last = first + len(wanted) - 1
        assert response.headers["Content-Range"] == f"bytes {first}-{last}/{len(ROCKET)}"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=5-2", "bytes=-", "lines=1-2", "bytes=a-"]
)
async def test_a_range_of_another_form_is_everything(served: Web, asked: str) -> None:
    image_id = (await served.upload(ROCKET))["imageId"]
    url = f"/api/v1/images/{image_id}/content"
    async with served.client.get(url, headers={"Range": asked}) as response:
        assert (response.status, len(await response.read())) == (200, len(ROCKET))


async def test_a_range_of_other_bytes_is_everything(served: Web) -> None:
    image_id = (await served.upload(ROCKET))["imageId"]
    headers = {"Range": "bytes=0-9", "If-Range": '"other"'}
    async with served.client.get(f"/api/v1/images/{image_id}/content", headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize("asked", [f"bytes={len(ROCKET)}-", "bytes=-0"])
async def test_a_range_behind_the_end(served: Web, asked: str) -> None:
    image_id = (await served.upload(ROCKET))["imageId"]
    url = f"/api/v1/images/{image_id}/content"
    async with served.client.get(url, headers={"Range": asked}) as response:
        assert response.status == 416
        assert response.headers["Content-Range"] == f"bytes */{len(ROCKET)}"
        assert (await response.json())["errorCode"] == "RANGE_NOT_SATISFIABLE"


@pytest.mark.parametrize(
    "name", ['a"b.jpg', "a\r\nSet-Cookie: x=1.jpg", "猫;x=y.jpg", "a\\b%0d%0a.jpg"]
)
async def test_a_file_name_cannot_inject_headers(served: Web, name: str) -> None:
    boundary = "boundary"
    escaped = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="tenantId"\r\n\r\n{TENANT}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{escaped}"'
        "\r\n\r\n"
    ).encode()
    body += ROCKET + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    async with served.client.post("/api/v1/images/upload", data=body, headers=headers) as response:
        image_id = (await response.json())["imageId"]
    async with served.client.get(f"/api/v1/images/{image_id}/content") as response:
        assert response.status == 200
        assert "Set-Cookie" not in response.headers
        shown = response.headers["Content-Disposition"]
        assert shown.startswith('inline; filename="')
        assert shown.count('"') == 2
        assert "filename*=UTF-8''" in shown


async def test_thumbnail(served: Web) -> None:
    image_id = (await served.upload(ROCKET))["imageId"]
    url = f"/api/v1/images/{image_id}/thumbnail"
    answer = await get(served, url, 404)
    assert answer["errorCode"] == "THUMBNAIL_NOT_FOUND"
    assert answer.keys() == models.Reply.blank().keys()
    await served.index(image_id)
    async with served.client.get(url) as response:
        assert response.headers["Content-Type"] == "image/jpeg"
        assert (await response.read())[:2] == b"\xff\xd8"
        etag = response.headers["ETag"]
    async with served.client.get(url, headers={"If-None-Match": etag}) as response:
        assert response.status == 304


async def test_a_thumbnail_that_nobody_wanted(served: Web) -> None:
    image_id = (await served.upload(ROCKET, generateThumbnail="false"))["imageId"]
    answer = await get(served, f"/api/v1/images/{image_id}/thumbnail", 404)
    assert "asked for" in answer["message"]
    assert (await get(served, f"/api/v1/images/{image_id}"))["thumbnailUrl"] is None


async def test_bytes_that_are_gone(served: Web) -> None:
    image_id = (await served.upload(ROCKET))["imageId"]
    image = await served.storage.find(image_id)
    assert image is not None
    await served.storage.delete_object(tenant=TENANT, key=image.originalKey)
    answer = await get(served, f"/api/v1/images/{image_id}/content", 404)
    assert answer["errorCode"] == "NOT_FOUND"


def joined(pages: list[list[str]]) -> list[str]:
    return list(itertools.chain.from_iterable(pages))


async def everything(served: Web, query: str) -> list[list[str]]:
    """Return the IDs of each page of a listing."""
    pages, cursor = [], ""
    while cursor is not None:
        answer = await get(served, f"/api/v1/images?tenantId={TENANT}&{query}&cursor={cursor}")
        assert answer.keys() == models.ImagePage.blank().keys()
        pages.append([image["imageId"] for image in answer["images"]])
        cursor = answer["nextCursor"]
    return pages


async def test_listing_is_newest_first_and_paged(served: Web) -> None:
    ids = [(await served.upload(ROCKET, skipDuplicateCheck="true"))["imageId"] for _ in range(5)]
    await served.upload(ROCKET, tenantId="other")
    pages = await everything(served, "limit=2")
    listed = joined(pages)
    assert max(map(len, pages)) == 2
    assert sorted(listed) == sorted(ids)
    times = [(await served.storage.find(each)).uploadedAt for each in listed]  # type: ignore[union-attr] # just listed
    assert times == sorted(times, reverse=True)


async def test_listing_by_status(served: Web) -> None:
    ids = [(await served.upload(ROCKET, skipDuplicateCheck="true"))["imageId"] for _ in range(7)]
    done = ids[::2]
    for image_id in done:
        await served.index(image_id)
    pages = await everything(served, "limit=3&status=completed")
    assert sorted(joined(pages)) == sorted(done)
    assert max(map(len, pages)) == 3
    pages = await everything(served, "limit=1&status=uploaded")
    assert sorted(joined(pages)) == sorted(set(ids) - set(done))
    assert joined(await everything(served, "status=failed")) == []


async def test_pages_by_status_hold_while_pictures_come_and_go(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a page's look at storage and its answer, too."""

    async def put() -> str:
        image_id = str((await served.upload(ROCKET, skipDuplicateCheck="true"))["imageId"])
        await served.index(image_id)
        return image_id

    there = [await put() for _ in range(8)]
    going, staying = there[5:7], [*there[:5], there[7]]
    listing = served.storage.list_images

    async def disturbed(**asked: Any) -> ListPage:
        page = await listing(**asked)
        await put()
        if going:
            await served.storage.delete_metadata(tenant=TENANT, image_id=going.pop())
        return page

    monkeypatch.setattr(served.storage, "list_images", disturbed)
    found = joined(await everything(served, "limit=2&status=completed"))
    assert len(found) == len(set(found))
    assert set(staying) <= set(found)


async def test_listing_while_rows_move(served: Web) -> None:
    await served.upload(ROCKET)
    served.rows.moving = True
    answer = await get(served, f"/api/v1/images?tenantId={TENANT}")
    assert answer["images"][0]["status"] is None
    answer = await get(served, f"/api/v1/images?tenantId={TENANT}&status=uploaded", 503)
    assert answer["errorCode"] == "ROW_MOVING"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "tenantId=A",
        *(
            f"tenantId=demo&{x}"
            for x in (
                "limit=",
                "limit=0",
                "limit=201",
                "limit=x",
                "status=x",
                "status=",
                "cursor=x",
            )
        ),
    ],
)
async def test_bad_listings(served: Web, query: str) -> None:
    answer = await get(served, f"/api/v1/images?{query}", 400)
    assert answer["images"] == []


async def test_every_answer_is_marked(served: Web) -> None:
    async with served.client.get("/health/live", headers={"X-Request-ID": "abc-1"}) as response:
        assert response.headers["X-Request-ID"] == "abc-1"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["Referrer-Policy"] == "no-referrer"
    async with served.client.get("/health/live", headers={"X-Request-ID": "a b"}) as response:
        assert response.headers["X-Request-ID"] != "a b"


async def test_unknown_addresses_and_methods(served: Web) -> None:
    for path in ("/nothing", "/api/v1/nothing", "/static/../__init__.py", "/static/nothing.js"):
        assert (await get(served, path, 404))["success"] is False
    async with served.client.put("/api/v1/images/upload") as response:
        answer = await response.json()
    assert (response.status, answer["errorCode"]) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"]


async def test_pages_load_nothing_from_elsewhere(served: Web) -> None:
    for path in ("/", "/docs", "/tables", "/tables/image_status", "/tables/image_status/x"):
        async with served.client.get(path, headers=BROWSER) as response:
            text = await response.text()
            policy = response.headers["Content-Security-Policy"]
            etag = response.headers["ETag"]
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "unsafe" not in policy
        assert "://" not in text
        assert "<style" not in text
        async with served.client.get(path, headers=BROWSER | {"If-None-Match": etag}) as response:
            assert response.status == 304
    for name in ("app.js", "api.js", "tables.js", "style.css", "icon.svg"):
        async with served.client.get(f"/static/{name}") as response:
            assert response.status == 200
