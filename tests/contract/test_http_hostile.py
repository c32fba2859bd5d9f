"""What strangers write comes back as data: polyglots, names, places and paths."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from tests.support.photographs import photograph
from tests.support.web_server import UPLOAD, Web, running

SCRIPT = b"<html><script>alert(document.domain)</script></html>"
ROCKET = photograph("rocket").data


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path) as found:
        yield found


def picture(format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, format, **options)
    return buffer.getvalue()


#: Pictures that are pages, archives or scripts as well.
POLYGLOTS = {
    "a page behind a JPEG": (ROCKET + SCRIPT, "image/jpeg"),
    "a page in a GIF's comment": (picture("GIF", comment=SCRIPT), "image/gif"),
    "a script that is a GIF": (picture("GIF").replace(b"GIF87a", b"GIF89a") + b"*/=1", "image/gif"),
    "an archive behind a PNG": (picture("PNG") + b"PK\x05\x06" + bytes(18), "image/png"),
    "a PDF behind a WebP": (picture("WEBP") + b"%PDF-1.7", "image/webp"),
}


@pytest.mark.parametrize("name", POLYGLOTS)
async def test_a_polyglot_is_served_as_a_picture_only(served: Web, name: str) -> None:
    data, kind = POLYGLOTS[name]
    image_id = (await served.upload(data, "report.html"))["imageId"]
    async with served.client.get(f"/api/v1/images/{image_id}/content") as response:
        assert await response.read() == data
        assert response.headers["Content-Type"] == kind
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
        saved_as = response.headers["Content-Disposition"].partition("''")[2]
    assert saved_as.startswith("report.html.")
    assert not saved_as.endswith("html")


@pytest.mark.parametrize("head", [SCRIPT, b"%PDF-1.7\n", b"PK\x03\x04", b"#!/bin/sh\n"])
async def test_a_picture_behind_something_else_is_no_picture(served: Web, head: bytes) -> None:
    form = {"tenantId": "demo", "file": io.BytesIO(head + ROCKET)}
    async with served.client.post(UPLOAD, data=form) as response:
        assert response.status == 415


@pytest.mark.parametrize(
    ("name", "saved_as"),
    [
        ("rocket.jpg", "rocket.jpg"),
        ("ROCKET.JPEG", "ROCKET.JPEG"),
        ("rocket", "rocket.jpg"),
        ("rocket.png", "rocket.png.jpg"),
        ("rocket.jpg.exe", "rocket.jpg.exe.jpg"),
        ("CON:<a>|b?*.jpg", "CON__a__b__.jpg"),
        (" ..jpg", "jpg.jpg"),
        ("CON.jpg", "_CON.jpg"),
        ("nul", "_nul.jpg"),
        ("Lpt1 .tar.jpeg", "_Lpt1 .tar.jpeg"),
        ("com¹.jpg", "_com_.jpg"),
        ("conin$.jpg. . ", "_conin$.jpg"),
        ("console.jpg", "console.jpg"),
        ("com10.jpg", "com10.jpg"),
    ],
)
async def test_the_name_for_saving_fits_the_content(served: Web, name: str, saved_as: str) -> None:
    image_id = (await served.upload(ROCKET, name))["imageId"]
    async with served.client.get(f"/api/v1/images/{image_id}/content") as response:
        assert f'filename="{saved_as}"' in response.headers["Content-Disposition"]


@pytest.mark.parametrize("asked", [None, "false", "true"])
async def test_places_are_kept_only_if_asked_for(served: Web, asked: str | None) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (48.0, 8.0, 1.5)}
    )
    more = {} if asked is None else {"keepGps": asked}
    image_id = (await served.upload(picture("JPEG", exif=exif), **more))["imageId"]
    image = await served.storage.find(image_id)
    assert image is not None
    kept = {"GPSInfo": {"GPSLatitudeRef": "N", "GPSLatitude": [48.0, 8.0, 1.5]}}
    assert image.metadata.exifData == {"Make": "Maker"} | (kept if asked == "true" else {})
    async with served.client.get(f"/api/v1/images/{image_id}") as response:
        shown = await response.json()
    assert shown["metadata"]["exifData"] == image.metadata.exifData


@pytest.mark.parametrize("path", ["/%0d%0aSet-Cookie:%20a=b", "/<script>alert(1)</script>", "/%00"])
async def test_a_path_comes_back_nowhere(served: Web, path: str) -> None:
    async with served.client.get(path) as response:
        assert response.status == 404
        assert response.content_type == "application/json"
        assert "Set-Cookie" not in response.headers
        assert "script" not in await response.text()
