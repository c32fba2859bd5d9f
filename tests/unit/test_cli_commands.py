"""The commands against the real web layer, as a person or a program calls them."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from deeplens_streams.cli.client import connect
from deeplens_streams.cli.upload_history import UploadMemory
from deeplens_streams.client import Client, Missing, NotReady
from deeplens_streams.errors import BrokerUnavailable
from deeplens_streams.web.handlers.status_socket import close_all
from models.status import Step, StepStatus
from tests.support.photographs import as_jpeg, cropped_copy, photograph
from tests.support.shells import NOBODY, Shell, shell, web
from tests.support.web_server import Web, report, row_of, until

__all__ = ["shell", "web"]  # fixtures


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    (folder / "cat.jpg").write_bytes(as_jpeg(photograph("chelsea").data))
    (folder / "deeper" / "coffee.JPEG").write_bytes(as_jpeg(photograph("coffee").data))
    (folder / "notes.txt").write_text("no picture")
    return folder


async def test_a_folder_is_uploaded_with_all_below_it(
    shell: Shell, web: Web, pictures: Path
) -> None:
    ended = await shell("upload", pictures)

    assert ended.code == 0
    assert ended.out == "2 uploaded\n"
    names = sorted(event.data.fileName for event in web.published)
    assert names == ["cat.jpg", "coffee.JPEG"]
    assert {event.tenantId for event in web.published} == {"demo"}


async def test_a_second_run_skips_what_the_first_sent(
    shell: Shell, web: Web, pictures: Path
) -> None:
    await shell("upload", pictures / "cat.jpg")
    ended = await shell("upload", pictures)

    assert ended.out == "1 uploaded, 1 sent by an earlier run\n"
    assert len(web.published) == 2

    report = (await shell("upload", pictures, "--again", "--json")).json
    assert report["uploaded"] + report["duplicate"] == 2
    assert report["skipped"] == 0


async def test_what_the_system_no_longer_has_is_sent_again(
    shell: Shell, web: Web, pictures: Path
) -> None:
    UploadMemory(shell.url, "demo").remember(pictures / "cat.jpg", NOBODY)

    ended = await shell("upload", pictures / "cat.jpg")
    assert ended.out == "1 uploaded\n"
    assert len(web.published) == 1


async def test_another_tenant_has_its_own_memory(shell: Shell, web: Web, pictures: Path) -> None:
    await shell("upload", pictures / "cat.jpg")
    ended = await shell("upload", pictures / "cat.jpg", "--tenant", "acme-corp")

    assert ended.out == "1 uploaded\n"
    assert web.published[-1].tenantId == "acme-corp"


async def test_failures_are_counted_and_named(shell: Shell, pictures: Path) -> None:
    (pictures / "page.jpg").write_text("<html></html>")
    (pictures / "empty.jpg").touch()
    ended = await shell("upload", pictures)

    assert ended.code == 1
    assert ended.out == "2 uploaded, 2 failed\n"
    assert "page.jpg: " in ended.err
    assert "empty.jpg: " in ended.err

    report = (await shell("upload", pictures / "page.jpg", "--json")).json
    assert report["failed"] == 1
    assert report["files"][0]["errorCode"] == "UNSUPPORTED_FORMAT"


async def test_follow_waits_until_all_are_searchable(
    shell: Shell, web: Web, pictures: Path
) -> None:
    async def index_all() -> None:
        await until(lambda: len(web.published) == 2)
        for event in web.published:
            await web.index(event.data.imageId)

    indexing = asyncio.create_task(index_all())
    ended = await shell("upload", pictures, "--follow", "--tag", "colour=red")
    await indexing

    assert ended.code == 0
    assert ended.out == "2 uploaded\n2 completed\n"


async def test_status_and_search(shell: Shell, web: Web, pictures: Path, tmp_path: Path) -> None:
    report = (await shell("upload", pictures, "--json")).json
    ids = {Path(each["file"]).name: each["imageId"] for each in report["files"]}
    cat = ids["cat.jpg"]

    ended = await shell("status", cat, "--json")
    assert ended.code == 0
    assert ended.json["imageId"] == cat
    for image_id in ids.values():
        await web.index(image_id)
    ended = await shell("status", cat, "--follow")
    assert ended.code == 0
    assert "100 % completed" in ended.out
    assert "vector_indexing" in (await shell("status", cat)).out

    query = tmp_path / "query.jpg"
    query.write_bytes(cropped_copy(photograph("chelsea").data))
    ended = await shell("search", query, "--threshold", -1)
    assert ended.code == 0
    assert ended.out.splitlines()[1].split()[2:] == ["cat.jpg", cat]

    ended = await shell("search", cat.removeprefix("img_"), "--json", "--limit", 1)
    assert ended.json["success"]
    ended = await shell("search", query, "--tenant", "acme-corp")
    assert ended.code == 0
    assert "Nothing of tenant acme-corp" in ended.out


async def test_follow_is_told_every_change(
    shell: Shell, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: Client, image_id: str) -> AsyncIterator[Any]:
        raise AssertionError("asked where it is told")
        yield

    monkeypatch.setattr(Client, "_ask", never)
    image_id = (await web.upload(photograph("rocket").data))["imageId"]
    following = asyncio.create_task(shell("status", image_id, "--follow", "--json"))
    await until(lambda: bool(web.feed.watchers[image_id]))
    done = report(Step.IMAGE_PROCESSING, StepStatus.COMPLETED, duration=1.5)
    row = row_of(image_id, "processing", [done])
    for _ in range(2):  # a repeat is no change
        web.feed.tell(row)
    await web.index(image_id)
    ended = await following

    assert ended.code == 0
    states = [json.loads(line)["status"] for line in ended.out.splitlines()]
    assert states == ["uploaded", "processing", "completed"]


async def test_follow_asks_when_it_is_not_told_to_the_end(shell: Shell, web: Web) -> None:
    image_id = (await web.upload(photograph("rocket").data))["imageId"]
    following = asyncio.create_task(shell("status", image_id, "--follow", "--json"))
    await until(lambda: bool(web.feed.watchers[image_id]))
    assert web.client.app is not None
    await close_all(web.client.app)
    await until(lambda: not web.feed.watchers[image_id])
    await web.index(image_id)
    ended = await following

    assert ended.code == 0
    states = [json.loads(line)["status"] for line in ended.out.splitlines()]
    assert states == ["uploaded", "completed"]


async def test_follow_asks_where_no_socket_can_be_had(
    shell: Shell, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deeplens_streams.client.client.SOCKET_PATH", "/hub/elsewhere")
    asked = Event()
    ask = Client._ask

    async def say_when(self: Client, image_id: str) -> AsyncIterator[Any]:
        asked.set()
        async for status in ask(self, image_id):
            yield status

    monkeypatch.setattr(Client, "_ask", say_when)
    image_id = (await web.upload(photograph("rocket").data))["imageId"]
    following = asyncio.create_task(shell("status", image_id, "--follow"))
    await until(asked.is_set)
    await web.index(image_id)
    ended = await following

    assert ended.code == 0
    assert "100 % completed" in ended.out


async def test_what_is_not_there(shell: Shell) -> None:
    ended = await shell("status", NOBODY)

    assert ended.code == 1
    assert ended.err.startswith("deeplens: ")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "img_1"),
        ("search", "no-such-file.jpg"),
        ("upload", "no-such-file.jpg"),
        ("upload", ".", "--tenant", "Not A Tenant"),
        ("upload", __file__, "--tag", "novalue"),
        ("search", NOBODY, "--limit", "0"),
        ("up", "--port", "0"),
    ],
)
async def test_wrong_usage_is_2(shell: Shell, arguments: tuple[str, ...]) -> None:
    ended = await shell(*arguments)

    assert ended.code == 2
    assert "Error: " in ended.err


async def test_nobody_there_is_3(shell: Shell, pictures: Path) -> None:
    nowhere = ["--url", "http://127.0.0.1:9"]
    for arguments in (["status", NOBODY], ["search", NOBODY], ["upload", str(pictures)]):
        ended = await shell(*arguments, *nowhere)
        assert ended.code == 3
        assert "Nothing answers at http://127.0.0.1:9" in ended.err
        assert ended.err.count("\n") == 1


async def test_a_url_that_is_none_is_one_sentence(shell: Shell) -> None:
    ended = await shell("status", NOBODY, "--url", "localhost")

    assert ended.code == 1
    assert "is no URL" in ended.err


async def test_a_busy_system_is_asked_again_as_it_wishes(
    web: Web, shell: Shell, pictures: Path
) -> None:
    web.broker_fault = BrokerUnavailable()
    waits: list[float] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            web.broker_fault = None

    with connect(shell.url, attempts=6, pause=pause) as api:
        answer = await asyncio.to_thread(api.upload, pictures / "cat.jpg", tenant="demo")

    assert answer.status == "uploaded"
    assert len(waits) == 2
    assert all(0 < wait <= 30 for wait in waits)


async def test_a_system_that_stays_busy_is_given_up(web: Web, shell: Shell, pictures: Path) -> None:
    web.broker_fault = BrokerUnavailable()
    waits: list[float] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    with connect(shell.url, attempts=6, pause=pause) as api:
        with pytest.raises(NotReady):
            await asyncio.to_thread(api.upload, pictures / "cat.jpg", tenant="demo")
        with pytest.raises(Missing):
            await asyncio.to_thread(api.status, NOBODY)

    assert len(waits) == 5
