"""Uploads: the answer's fields, every refusal, and that a refused one leaves nothing."""

import asyncio
import hashlib
import io
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from threading import Event
from typing import Any

import obstore
import pytest
from aiohttp import FormData
from PIL import Image

from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import UPLOADED
from deeplens_streams.circuit_breaker import breaker as circuit_breaker
from deeplens_streams.client import models
from deeplens_streams.errors import (
    BrokerUnavailable,
    DeepLensError,
    StorageFull,
    StorageUnavailable,
    UrlNotFetched,
)
from deeplens_streams.ingest import fetcher
from deeplens_streams.storage.blobs.connection import connect
from deeplens_streams.storage.blobs.files import NewFile
from deeplens_streams.storage.blobs.local import LocalBlobs
from deeplens_streams.storage.blobs.store import Blobs, Write
from deeplens_streams.storage.duplicate_claims import DuplicateClaims
from deeplens_streams.web import upload_acceptance
from deeplens_streams.web.metrics import UPLOADS
from models.images import StoredImage
from tests.support.photographs import photograph
from tests.support.web_server import TENANT, UPLOAD, Web, noise_jpeg, running, until

IMAGE_ID = re.compile(r"img_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path, max_upload_bytes=3_000_000, max_pixels=4_000_000) as found:
        yield found


def form(data: bytes | None, *, name: str = "a.jpg", **fields: str) -> FormData:
    made = FormData()
    # At least one part with a file name: without it, aiohttp would not send a multipart form.
    made.add_field("note", b"x", filename="note.txt")
    for key, value in fields.items():
        made.add_field(key, value)
    if data is not None:
        made.add_field("file", io.BytesIO(data), filename=name)
    return made


async def refused(served: Web, body: Any, status: int, code: str, **kwargs: Any) -> dict[str, Any]:
    async with served.client.post(UPLOAD, data=body, **kwargs) as response:
        answer: dict[str, Any] = await response.json()
    assert (response.status, answer["errorCode"]) == (status, code)
    assert answer.keys() == models.Upload.blank().keys()
    assert answer["success"] is False
    assert answer["message"].endswith(".")
    others = answer.keys() - {"success", "message", "errorCode"}
    assert not any(answer[name] for name in others)
    await nothing_left(served)
    return answer


async def nothing_left(served: Web) -> None:
    await until(lambda: not served.spooled)
    assert served.published == []
    listed = await served.storage.list_images(tenant=TENANT, limit=10)
    assert listed.images == []


async def test_an_accepted_upload(served: Web) -> None:
    data = photograph("rocket").data
    answer = await served.upload(
        data,
        "rocket.jpg",
        uploadedBy="ann",
        priority="high",
        skipDuplicateCheck="true",
        generateThumbnail="false",
        **{"tags[colour]": "blue", "tags[place]": "Cape Canaveral"},
    )
    assert answer.keys() == models.Upload.blank().keys()
    image_id = answer["imageId"]
    assert IMAGE_ID.fullmatch(image_id)
    assert answer["success"] is True
    assert answer["status"] == "uploaded"
    assert answer["statusCheckUrl"] == f"/api/v1/images/{image_id}/status"
    assert answer["webSocketUrl"] == f"/hub/processing-status?imageId={image_id}"
    assert answer["uploadTimeMs"] > 0
    assert answer["estimatedProcessingTimeSeconds"] is None
    assert answer["duplicateOf"] is None
    assert answer["errorCode"] is None
    assert answer["timestamp"].endswith("Z")
    assert answer["processingOptions"] == {
        "models": ["memory-projections"],
        "priority": "high",
        "skipDuplicateCheck": True,
        "generateThumbnail": False,
    }
    assert served.spooled == []

    image = await served.storage.find(image_id)
    assert image is not None
    assert image.tenantId == TENANT
    assert image.uploadedBy == "ann"
    assert image.tags == {"colour": "blue", "place": "Cape Canaveral"}
    assert image.checksumSha256 == hashlib.sha256(data).hexdigest()
    assert image.fileSize == len(data)
    assert await served.storage.get(tenant=TENANT, key=image.originalKey) == data

    (event,) = served.published
    assert event.eventId == event.correlationId == image.correlationId
    assert uuid.UUID(event.eventId)
    assert event.data.imageId == image_id
    assert event.data.filePath == image.originalKey
    assert event.data.metadata is not None
    assert event.data.metadata.format == "JPEG"
    assert event.data.metadata.width == 640


async def test_format_is_told_by_content(served: Web) -> None:
    answer = await served.upload(photograph("chelsea").data, "not-a-dog.jpg")
    image = await served.storage.find(answer["imageId"])
    assert image is not None
    assert image.contentType == "image/png"
    assert image.fileName == "not-a-dog.jpg"


async def test_fields_may_follow_the_file(served: Web) -> None:
    made = FormData()
    made.add_field("file", photograph("rocket").data, filename="a.jpg")
    made.add_field("tenantId", TENANT)
    made.add_field("models", "memory-projections, memory-projections")
    async with served.client.post(UPLOAD, data=made) as response:
        assert response.status == 202
        assert (await response.json())["processingOptions"]["models"] == ["memory-projections"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd.jpg", "passwd.jpg"),
        ("C:\\photos\\me.jpg", "me.jpg"),
        ("a\u202egpj.exe", "agpj.exe"),
        ("…/", "image"),
        ("..", "image"),
        ("ünïcode 猫.jpg", "ünïcode 猫.jpg"),
        ("x" * 300 + ".jpg", "x" * 251 + ".jpg"),
    ],
)
async def test_file_names_are_made_safe(served: Web, given: str, shown: str) -> None:
    made = FormData(quote_fields=False)
    made.add_field("tenantId", TENANT)
    made.add_field("file", photograph("rocket").data, filename=given)
    async with served.client.post(UPLOAD, data=made) as response:
        assert response.status == 202
    assert served.published[0].data.fileName == shown


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tenantId": "Demo"}, "INVALID_TENANT_ID"),
        ({"tenantId": "a/b"}, "INVALID_TENANT_ID"),
        ({"tenantId": ""}, "INVALID_TENANT_ID"),
        ({"priority": "urgent"}, "BAD_REQUEST"),
        ({"generateThumbnail": "maybe"}, "BAD_REQUEST"),
        ({"skipDuplicateCheck": "1"}, "BAD_REQUEST"),
        ({"models": "resnet50,clip"}, "UNKNOWN_MODEL"),
        ({"uploadedBy": "x" * 129}, "BAD_REQUEST"),
        ({"uploadedBy": "a\x07b"}, "BAD_REQUEST"),
        ({"tags[a.b]": "c"}, "BAD_REQUEST"),
        ({"tags[]": "c"}, "BAD_REQUEST"),
        ({"tags[a]": "x" * 257}, "BAD_REQUEST"),
        ({f"tags[k{number}]": "v" for number in range(33)}, "BAD_REQUEST"),
        ({f"field{number}": "v" for number in range(120)}, "BAD_REQUEST"),
        ({"filters": "x" * 20_000}, "BAD_REQUEST"),
    ],
)
async def test_bad_fields(served: Web, fields: dict[str, str], code: str) -> None:
    given = {"tenantId": TENANT} | fields
    await refused(served, form(photograph("rocket").data, **given), 400, code)


async def test_no_tenant(served: Web) -> None:
    await refused(served, form(photograph("rocket").data), 400, "INVALID_TENANT_ID")


async def test_no_file(served: Web) -> None:
    await refused(served, form(None, tenantId=TENANT), 400, "BAD_REQUEST")


async def test_empty_file(served: Web) -> None:
    await refused(served, form(b"", tenantId=TENANT), 400, "BAD_REQUEST")


async def test_two_files(served: Web) -> None:
    made = form(photograph("rocket").data, tenantId=TENANT)
    made.add_field("file", photograph("rocket").data, filename="b.jpg")
    await refused(served, made, 400, "BAD_REQUEST")


async def test_a_field_twice(served: Web) -> None:
    made = form(photograph("rocket").data, tenantId=TENANT)
    made.add_field("tenantId", "other")
    await refused(served, made, 400, "BAD_REQUEST")


@pytest.mark.parametrize(
    "kind",
    ["application/json", "multipart/form-data", f"multipart/form-data; boundary={'x' * 300}", ""],
)
async def test_no_form(served: Web, kind: str) -> None:
    await refused(served, b"{}", 400, "BAD_REQUEST", headers={"Content-Type": kind})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nabc",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="tenantId"\r\n\r\n\xff\xfe\r\n--x--\r\n',
        b"--x\r\n" + b"A" * 10_000 + b": b\r\n\r\n\r\n--x--\r\n",
    ],
)
async def test_broken_forms(served: Web, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    await refused(served, body, 400, "BAD_REQUEST", headers=headers)


@pytest.mark.parametrize("size", [3_000_001, 3_900_000, 12_000_000])
async def test_too_many_bytes(served: Web, size: int) -> None:
    answer = await refused(served, form(noise_jpeg(size), tenantId=TENANT), 413, "TOO_LARGE")
    assert "3,000,000 bytes" in answer["message"]


async def test_as_many_bytes_as_allowed(served: Web) -> None:
    answer = await served.upload(noise_jpeg(3_000_000))
    image = await served.storage.find(answer["imageId"])
    assert image is not None
    assert image.fileSize == 3_000_000


async def test_an_endless_body_is_cut_off(served: Web) -> None:
    """Without a length in the header, what was read is counted."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        while sent < 8_000_000:
            yield bytes(65_536)
            sent += 65_536
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    await refused(served, endless(), 413, "TOO_LARGE", headers=headers)


async def test_too_many_pixels(served: Web) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    answer = await refused(served, form(buffer.getvalue(), tenantId=TENANT), 413, "TOO_MANY_PIXELS")
    assert "megapixels" in answer["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html><script>alert(1)</script></html>",
        b"%PDF-1.7",
        b"x",
    ],
)
async def test_unsupported_formats(served: Web, data: bytes) -> None:
    await refused(served, form(data, tenantId=TENANT), 415, "UNSUPPORTED_FORMAT")


async def test_a_damaged_header(served: Web) -> None:
    data = photograph("chelsea").data[:20]
    await refused(served, form(data, tenantId=TENANT), 400, "UNDECODABLE_IMAGE")


async def test_a_body_that_is_cut_short_is_accepted(served: Web) -> None:
    """Only decoding finds it, and decoding comes later."""
    await served.upload(photograph("rocket").data[:20_000])


class Faults:
    """Blobs of which one write fails, or waits, once it has done its work."""

    fault: tuple[str, DeepLensError | Event] | None = None
    #: Of the last original.
    key = ""

    def __init__(self, *store: Any) -> None:
        super().__init__(*store)
        self.reached = Event()

    def done(self, key: str) -> None:
        """Note that an object was written."""
        self.key = key if "/original/" in key else self.key
        kinds = {"index/": "pointer", f"{TENANT}/metadata/": "metadata"}
        kinds |= {f"{TENANT}/original/": "original", f"{TENANT}/checksum/": "claim"}
        self.then(next((name for start, name in kinds.items() if key.startswith(start)), ""))

    def then(self, name: str) -> None:
        if self.fault is None or self.fault[0] != name:
            return
        self.reached.set()
        what = self.fault[1]
        if isinstance(what, Event):
            what.wait()
        else:
            raise what

    async def delete(self, key: str, **options: Any) -> None:
        if "/original/" in key:
            self.then("delete_object")
        await super().delete(key, **options)  # type: ignore[misc] # blobs come after


class FaultyObjects(Faults, Blobs):
    async def _put(self, write: Write) -> None:
        await super()._put(write)
        await asyncio.to_thread(self.done, write.key)


class FaultyFolder(Faults, LocalBlobs):
    def _place(self, write: Write, new: NewFile) -> None:
        super()._place(write, new)
        self.done(write.key)


@pytest.fixture(params=["memory", "local"])
def faulty(request: pytest.FixtureRequest, tmp_path: Path) -> FaultyObjects | FaultyFolder:
    if request.param == "memory":
        return FaultyObjects(connect("memory://"))
    return FaultyFolder(connect((tmp_path / "images").as_uri()))


async def nothing_stored(blobs: FaultyObjects | FaultyFolder) -> None:
    """No claim, no original, no pointer and no metadata, by whatever name."""
    everything = await obstore.list(blobs._store).collect_async()
    assert everything == []


@pytest.mark.parametrize("write", ["claim", "original", "pointer", "metadata"])
@pytest.mark.parametrize(
    ("error", "status"), [(StorageUnavailable, 503), (StorageFull, 507)], ids=["away", "full"]
)
@pytest.mark.parametrize("size", [20_000, 2_000_000], ids=["in memory", "on disk"])
async def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path,
    faulty: FaultyObjects | FaultyFolder,
    write: str,
    *,
    error: Callable[[], DeepLensError],
    status: int,
    size: int,
) -> None:
    faulty.fault = (write, error())
    async with running(tmp_path, blobs=faulty) as served:
        data = form(noise_jpeg(size), tenantId=TENANT)
        async with served.client.post(UPLOAD, data=data) as response:
            answer = await response.json()
        assert response.status == status
        assert answer["errorCode"] == error().code
        assert response.headers["Retry-After"]
        assert faulty.key or write == "claim"
        await nothing_left(served)
        await nothing_stored(faulty)


async def test_a_broker_that_is_away_leaves_nothing(served: Web) -> None:
    served.broker_fault = BrokerUnavailable()
    data = form(photograph("rocket").data, tenantId=TENANT)
    await refused(served, data, 503, "BROKER_UNAVAILABLE")


async def test_what_stages_made_of_a_refused_upload_goes_too(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = photograph("rocket").data
    image = await served.storage.find((await served.upload(picture))["imageId"])
    assert image is not None
    await until(lambda: served.acceptance.background.idle)

    async def taken_but_not_said(*messages: Message) -> None:
        if messages[0].topic is UPLOADED:
            await served.storage.put_thumbnail(
                tenant=image.tenantId, key=image.thumbnailKey, data=b"made meanwhile"
            )
        raise BrokerUnavailable

    door = upload_acceptance(served.context)
    monkeypatch.setattr(door, "_publish", taken_but_not_said)
    image.processingOptions.skipDuplicateCheck = True
    with pytest.raises(BrokerUnavailable):
        await door.accept(image, picture)
    assert await served.storage.size(tenant=image.tenantId, key=image.thumbnailKey) is None


async def test_a_refused_upload_that_was_processed_is_deleted_when_kafka_is_back(
    tmp_path: Path, faulty: FaultyObjects | FaultyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(circuit_breaker, "LONGEST_WAIT_S", 0.1)
    async with running(tmp_path, blobs=faulty) as served:
        served.purges = True
        served.broker_fault = BrokerUnavailable()
        # Nor does this process hear what became of it.
        monkeypatch.setattr(served.feed, "tell", lambda _row: None)
        taken: list[str] = []

        async def taken_but_not_said(*messages: Message) -> None:
            for message in messages:
                if message.topic is UPLOADED and message.event.image_id is not None:
                    taken.append(message.event.image_id)
                    await served.index(message.event.image_id)
            await served.publish(*messages)

        door = served.acceptance
        monkeypatch.setattr(door, "_publish", taken_but_not_said)
        data = form(photograph("rocket").data, tenantId=TENANT)
        await refused(served, data, 503, "BROKER_UNAVAILABLE")
        vectors, model = served.vectors, served.model.name
        assert vectors is not None
        assert await vectors.present(taken, tenant=TENANT, model=model) == set(taken)

        served.broker_fault = None
        await until(lambda: served.acceptance.background.idle and not served._work)
        assert len(taken) == 1
        assert await vectors.present(taken, tenant=TENANT, model=model) == set()
        await nothing_stored(faulty)


async def test_an_unforeseen_error_leaves_nothing(served: Web) -> None:
    served.broker_fault = RuntimeError("a secret")  # type: ignore[assignment] # what nobody foresaw
    data = form(photograph("rocket").data, tenantId=TENANT)
    before = UPLOADS.labels("INTERNAL")._value.get()
    answer = await refused(served, data, 500, "INTERNAL")
    assert "secret" not in answer["message"]
    assert UPLOADS.labels("INTERNAL")._value.get() == before + 1


async def test_all_of_an_upload_together_has_a_deadline(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_messages: Message) -> None:
        await asyncio.Event().wait()

    served.hasten(accept_s=0.2)
    monkeypatch.setattr(served.acceptance, "_publish", silent)
    data = form(photograph("rocket").data, tenantId=TENANT)
    answer = await refused(served, data, 503, "STORAGE_UNAVAILABLE")
    assert answer["message"] == "Storing the picture took too long; try again."


async def test_the_end_of_the_process_waits_for_confirmations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirm, release = DuplicateClaims.confirm, asyncio.Event()

    async def late(claims: DuplicateClaims, image: StoredImage) -> None:
        await release.wait()
        await confirm(claims, image)

    monkeypatch.setattr(DuplicateClaims, "confirm", late)
    async with running(tmp_path) as served:
        answer = await served.upload(photograph("rocket").data)
        asyncio.get_running_loop().call_later(0.1, release.set)
    image = await served.storage.find(answer["imageId"])
    assert image is not None
    claim = await served.claims.find(tenant=TENANT, checksum=image.checksumSha256)
    assert claim is not None
    assert claim.confirmed


async def test_removal_goes_on_until_storage_answers(
    tmp_path: Path, faulty: FaultyObjects | FaultyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "FIRST_WAIT_S", 0.05)
    faulty.fault = ("delete_object", StorageUnavailable())
    async with running(tmp_path, blobs=faulty) as served:
        served.hasten(undo_s=0.05)
        served.broker_fault = BrokerUnavailable()
        data = form(photograph("rocket").data, tenantId=TENANT)
        async with served.client.post(UPLOAD, data=data) as response:
            assert response.status == 503
        assert await served.storage.get(tenant=TENANT, key=faulty.key) is not None
        served.purges = True
        faulty.fault = served.broker_fault = None
        await until(lambda: served.acceptance.background.idle and not served._work)
        await nothing_stored(faulty)


@pytest.mark.parametrize("write", ["claim", "original", "pointer", "metadata"])
async def test_a_request_cancelled_between_writes_leaves_nothing(
    tmp_path: Path, faulty: FaultyObjects | FaultyFolder, write: str
) -> None:
    async with running(tmp_path) as plain:
        answer = await plain.upload(photograph("rocket").data)
        image = await plain.storage.find(answer["imageId"])
    assert image is not None
    release = Event()
    faulty.fault = (write, release)

    source = tmp_path / "picture"
    source.write_bytes(photograph("rocket").data)
    async with running(tmp_path, blobs=faulty) as served:
        door = upload_acceptance(served.context)
        task = asyncio.create_task(door.accept(image, source))
        await asyncio.to_thread(faulty.reached.wait)
    task.cancel()
    await asyncio.sleep(0.01)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await nothing_stored(faulty)


async def test_storage_that_takes_too_long_leaves_nothing(
    tmp_path: Path, faulty: FaultyObjects | FaultyFolder
) -> None:
    release = Event()
    faulty.fault = ("pointer", release)
    async with running(tmp_path, blobs=faulty) as served:
        served.hasten(store_s=0.05)
        data = form(photograph("rocket").data, tenantId=TENANT)
        asyncio.get_running_loop().call_later(0.2, release.set)
        async with served.client.post(UPLOAD, data=data) as response:
            assert response.status == 503
            assert (await response.json())["errorCode"] == "STORAGE_UNAVAILABLE"
        await nothing_left(served)
        await nothing_stored(faulty)


async def test_a_client_that_hangs_up_leaves_nothing(served: Web) -> None:
    host, port = served.client.host, served.client.port
    _, writer = await asyncio.open_connection(host, port)
    head = (
        f"POST {UPLOAD} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )
    writer.write(head.encode() + bytes(1_000_000))
    await writer.drain()
    await until(lambda: served.spooled)
    writer.close()
    await writer.wait_closed()
    await nothing_left(served)


async def test_a_tenant_over_its_rate_has_nothing_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    got: Counter[tuple[int, str]] = Counter()

    async def fetch(_importer: object, url: str, *_more: object) -> str:
        fetched.append(url)
        raise UrlNotFetched

    monkeypatch.setattr(fetcher.ImageFetcher, "fetch", fetch)
    async with running(tmp_path, url_import=True, tenant_uploads_per_minute=2) as served:
        for _ in range(7):  # no two minutes have room for so many
            made = form(None, tenantId=TENANT, url="https://pictures.example/a.jpg")
            async with served.client.post(UPLOAD, data=made) as response:
                got[(response.status, (await response.json())["errorCode"])] += 1
    assert got.keys() == {(400, "URL_NOT_FETCHED"), (429, "RATE_LIMITED")}
    assert got[(400, "URL_NOT_FETCHED")] == len(fetched) <= 4


async def test_leftovers_go_at_start_and_the_folder_is_private(tmp_path: Path) -> None:
    spool = tmp_path / "state" / "spool"
    spool.mkdir(parents=True, mode=0o755)
    (spool / "0123.upload").write_bytes(b"left by a killed process")
    async with running(tmp_path) as served:
        assert served.spooled == []
        assert spool.stat().st_mode & 0o777 == 0o700


async def test_the_estimate_is_measured(served: Web) -> None:
    first = await served.upload(photograph("rocket").data)
    await served.index(first["imageId"])
    second = await served.upload(photograph("coffee").data)
    assert 0 <= second["estimatedProcessingTimeSeconds"] < 60
