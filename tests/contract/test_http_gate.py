"""Uploads are refused before anything suffers, with the time after which to come again."""

import shutil
from collections import namedtuple
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData

from deeplens_streams.config import Settings
from deeplens_streams.errors import StorageFull
from deeplens_streams.ingest import admission
from tests.support.photographs import photograph
from tests.support.web_server import SEARCH, TENANT, UPLOAD, Pressure, Web, noise_jpeg, running

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path, max_backlog=100, disk_reserve_bytes=1000) as found:
        yield found


async def refused(served: Web) -> tuple[int, str, int]:
    form = FormData(default_to_multipart=True)
    form.add_field("tenantId", TENANT)
    form.add_field("file", photograph("rocket").data, filename="a.jpg")
    async with served.client.post(UPLOAD, data=form) as response:
        answer: dict[str, Any] = await response.json()
        assert served.spooled == []
        assert (await served.storage.list_images(tenant=TENANT, limit=1)).images == []
        return response.status, answer["errorCode"], int(response.headers["Retry-After"])


@pytest.mark.parametrize(
    ("waiting", "rate", "wait"),
    [(100, 0.5, 2), (200, 10.0, 11), (200, 0.0, 30), (200, None, 30), (10**9, 1.0, 3600)],
)
async def test_too_many_that_wait(served: Web, waiting: int, rate: float | None, wait: int) -> None:
    served.backlog.waiting, served.backlog.drain_rate = waiting, rate
    assert await refused(served) == (429, "BACKLOG_FULL", wait)
    served.backlog.waiting = 99
    await served.upload(photograph("rocket").data)


async def test_a_disk_that_is_nearly_full(served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _folder: Usage(9999, 9000, 999))
        status, code, _ = await refused(served)
    assert (status, code) == (507, "STORAGE_FULL")
    await served.upload(photograph("rocket").data)


@pytest.mark.parametrize(("size", "free"), [(2000, 3000), (None, 10_001_000), (10**12, 10_001_000)])
def test_uploads_under_way_count_against_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None, free: int
) -> None:
    settings = Settings(data_dir=tmp_path, disk_reserve_bytes=1000, max_upload_bytes=10_000_000)
    door = admission.AdmissionControl(settings, Pressure())
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(10**9, 0, free))
    with door.admit(size), pytest.raises(StorageFull), door.admit(1):
        pass
    with door.admit(size):
        pass


async def test_searches_keep_to_the_reserve(served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """But those whose picture lies in memory, or is stored, are answered by a full disk, too."""
    image_id = (await served.upload(photograph("rocket").data))["imageId"]
    await served.index(image_id)
    served.backlog.waiting = 100

    async def search(**query: Any) -> tuple[int, str | None]:
        form = FormData({"tenantId": TENANT}, default_to_multipart=True)
        for name, value in query.items():
            form.add_field(name, value, **({"filename": "q.jpg"} if name != "imageId" else {}))
        async with served.client.post(SEARCH, data=form) as response:
            assert served.spooled == []
            return response.status, (await response.json())["errorCode"]

    large = noise_jpeg(1_000_000)
    assert await search(queryImage=large) == (200, None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(10**9, 0, 900_000))
    assert await search(queryImage=large) == (507, "STORAGE_FULL")
    assert await search(queryImage=photograph("rocket").data) == (200, None)
    assert await search(imageId=image_id) == (200, None)


def test_searches_and_uploads_count_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path, disk_reserve_bytes=1000, max_upload_bytes=10_000_000)
    door = admission.AdmissionControl(settings, Pressure())
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(10**9, 0, 10_001_000))
    with door.admit_query(None), pytest.raises(StorageFull), door.admit(1):
        pass
    with door.admit(None), pytest.raises(StorageFull), door.admit_query(1_000_000):
        pass
    with door.admit_query(None), door.admit_query(1000):
        pass


async def test_what_is_not_known_refuses_nobody(served: Web) -> None:
    served.backlog.waiting = None
    await served.upload(photograph("rocket").data)
