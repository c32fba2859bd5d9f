"""Who can write to the topics and knows an image's ID changes nothing of another tenant's.

That holds for events that name the stranger's own tenant. What names the right one is believed: no
event can prove who wrote it. So writing to the topics is for workers alone, by Kafka's ACLs
(docs/securing-connections.md), above all to those of tenants: whoever may write there can make
himself a key.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, FormData, WSMsgType

from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import (
    EXTRACTION,
    FAILED,
    INDEXING,
    STATUS,
    TENANT_CHANGES,
    UPLOADED,
)
from deeplens_streams.deletion import image as deletion
from deeplens_streams.errors import NotRetryable
from deeplens_streams.pipeline.dead_letters import letter_id
from deeplens_streams.pipeline.progress import ending, progress, report
from deeplens_streams.pipeline.requests import event_id, uploaded_event
from deeplens_streams.pipeline.retry import Replay
from deeplens_streams.tenancy.registry import change_of
from deeplens_streams.web import ROUTES
from deeplens_streams.web.handlers import status_socket as hub
from deeplens_streams.web.middleware.auth import INTERNAL
from models.deletion import Tombstone
from models.events import (
    Event,
    FeatureExtractionData,
    FeatureExtractionRequested,
    ImageUploaded,
    ProcessingFailed,
    ProcessingFailedData,
    VectorIndexingData,
    VectorIndexingRequested,
    VectorMetadata,
    derived_id,
)
from models.images import StoredImage
from models.status import Ending, ImageRow, ImageStatusChanged, Step, StepStatus
from models.tenants import ChangeKind, Count, TenantChangeData
from tests.support.api_keys import OPERATOR, ask, tenant_key
from tests.support.killed_systems import BROKEN, PICTURE, Fuse, System, ledger
from tests.support.stored_images import image as made_image
from tests.support.web_server import SEARCH, Web, done_row, row_of, running

STRANGER = "evil-corp"
#: Of a picture that cannot be decoded.
STEP = Step.FEATURE_EXTRACTION


@pytest.fixture
def system() -> System:
    return System(Fuse())


async def uploaded(system: System) -> StoredImage:
    image = await system.upload(PICTURE)
    assert image is not None
    return image


def forged(image: StoredImage) -> ImageUploaded:
    event = uploaded_event(image)
    event.tenantId = STRANGER
    event.eventId = event.correlationId = "forged"
    event.data.filePath = event.data.fileName = "forged"
    return event


def an_upload(image: StoredImage) -> list[Message]:
    return [Message(UPLOADED, forged(image))]


def an_extraction(image: StoredImage) -> list[Message]:
    event = FeatureExtractionRequested(
        **_envelope(image, FeatureExtractionRequested),
        data=FeatureExtractionData(
            imageId=image.imageId, imagePath="x", modelName="no-such", expectedDimension=1
        ),
    )
    return [Message(EXTRACTION, event)]


def a_vector(image: StoredImage) -> list[Message]:
    event = VectorIndexingRequested(
        **_envelope(image, VectorIndexingRequested),
        data=VectorIndexingData(
            imageId=image.imageId,
            modelName=(image.processingOptions.models or [""])[0],
            featureVector=[1.0],
            vectorMetadata=VectorMetadata(
                extractionTime=image.uploadedAt, processingTimeMs=1.0, modelVersion="x"
            ),
            uploadedAt=image.uploadedAt,
        ),
    )
    return [Message(INDEXING, event)]


def a_failure(image: StoredImage) -> list[Message]:
    said = report(Step.IMAGE_PROCESSING, StepStatus.FAILED)
    return [progress(forged(image), [said], image)]


def a_letter(image: StoredImage) -> list[Message]:
    """The letter of the image's first failure, whose ID anybody can work out."""
    event = ProcessingFailed(
        **_envelope(image, ProcessingFailed),
        data=ProcessingFailedData(
            imageId=image.imageId,
            failedStep=STEP.value,
            errorCode="FORGED",
            errorMessage="forged",
            canRetry=True,
        ),
    )
    event.eventId = derived_id("failed", STEP, extraction_id(image))
    return [Message(FAILED, event)]


def a_status(image: StoredImage) -> list[Message]:
    """A row on the topic that websockets are fed from."""
    return [Message(STATUS, changed(row_of(image.imageId, "failed", [], tenantId=STRANGER)))]


def a_change_of_a_tenant(image: StoredImage) -> list[Message]:
    """What takes pictures from a tenant's usage: from the stranger's own."""
    count = Count(offset=10**9, images=-1, bytes=-image.fileSize)
    data = TenantChangeData(kind=ChangeKind.COUNT.value, partition=0, counts=[count])
    return [Message(TENANT_CHANGES, change_of(STRANGER, data))]


def an_ending(image: StoredImage) -> list[Message]:
    return [ending(forged(image), Ending.DELETED, uploaded_at=image.uploadedAt)]


def a_deletion(image: StoredImage) -> list[Message]:
    tombstone = Tombstone(
        **{name: getattr(image, name) for name in ("imageId", "correlationId", "uploadedAt")},
        tenantId=STRANGER,
        requestedAt=image.uploadedAt,
        originalKey="x",
        thumbnailKey="x",
        checksumSha256="x",
        models=[],
        steps={},
    )
    return deletion.messages(tombstone)


def _envelope(image: StoredImage, record: type[Event]) -> dict[str, Any]:
    return {
        "eventType": record.EVENT_TYPE,
        "eventId": "forged",
        "tenantId": STRANGER,
        "correlationId": "forged",
    }


def extraction_id(image: StoredImage) -> str:
    """Return the ID of the event that asks for the image's vector; anybody can work it out."""
    return event_id(image, STEP, (image.processingOptions.models or [""])[0], 1)


def changed(row: ImageRow) -> ImageStatusChanged:
    return ImageStatusChanged(
        eventType=ImageStatusChanged.EVENT_TYPE,
        tenantId=row.tenantId,
        correlationId=row.correlationId,
        data=row,
    )


@asynccontextmanager
async def over_http(system: System, folder: Path) -> AsyncIterator[tuple[Web, str]]:
    """Serve what the system has; yield that with a key of the stranger's."""
    parts = {"blobs": system.blobs, "vectors": system.vectors}
    async with running(folder, admin_key=OPERATOR, **parts) as web:
        web.rows.held |= {key.decode(): row for key, row in system.table.items()}
        yield web, await tenant_key(web, STRANGER)


async def sees_nothing(system: System, image: StoredImage, folder: Path) -> None:
    """Check that no address shows the stranger anything of a picture but what they wrote."""
    ids = {"{image_id}": image.imageId, "{letter_id}": letter_of(image)}
    async with over_http(system, folder) as (web, key):
        answers = []
        for route in ROUTES:
            name = next((each for each in ids if each in route.path), None)
            if name is not None and route.scope not in (None, INTERNAL):
                path = route.path.replace(name, ids[name])
                status, answer = await ask(web, route.method, path, key)
                assert status in (403, 404), (route.method, path)
                answers.append(answer)
        for path in ("images", "dead-letters?state=all", "usage"):
            status, answer = await ask(web, "GET", f"/api/v1/{path}", key)
            assert status == 200
            answers.append(answer)
            for letter in answer.get("deadLetters", ()):
                _, whole = await ask(web, "GET", f"/api/v1/dead-letters/{letter['letterId']}", key)
                answers.append(whole)
        assert answers[-1]["images"] == 0
        form = FormData(default_to_multipart=True)
        form.add_field("threshold", "-1")
        form.add_field("queryImage", PICTURE, filename="q.jpg")
        async with web.client.post(SEARCH, data=form, headers={"X-API-Key": key}) as response:
            found = await response.json()
            assert (response.status, found["results"]) == (200, [])
        hub = f"/hub/processing-status?imageId={image.imageId}"
        async with web.client.ws_connect(hub, headers={"X-API-Key": key}) as socket:
            assert await texts(socket) == []
            assert socket.close_code == 4404
    for mine in (image.correlationId, image.originalKey, image.thumbnailKey, *image.tags.values()):
        assert mine not in str(answers)


async def texts(socket: ClientWebSocketResponse) -> list[dict[str, Any]]:
    """Return what a websocket says until it closes."""
    async with asyncio.timeout(10):
        return [each.json() async for each in socket if each.type is WSMsgType.TEXT]


def letter_of(image: StoredImage) -> str:
    return letter_id(image.tenantId, STEP.value, extraction_id(image))


Forgery = Callable[[StoredImage], list[Message]]


@pytest.mark.parametrize(
    "forgery",
    [
        *(an_upload, an_extraction, a_vector, a_failure, a_letter, a_status, a_change_of_a_tenant),
        *(an_ending, a_deletion),
    ],
)
@pytest.mark.parametrize("when", ["first", "last"])
async def test_a_strangers_events_change_nothing(
    system: System, forgery: Forgery, when: str, tmp_path: Path
) -> None:
    image = await uploaded(system)
    if when == "last":
        await system.settle()
    own, system.log = system.log, {}
    await system.send(*forgery(image))
    await system.settle()
    system.log = own
    await system.settle()
    row = await system.row(image.imageId)
    assert row is not None
    assert (row.tenantId, row.status, row.errorCode) == (image.tenantId, "completed", None)
    found = await ledger(system, image)
    assert (found["vector"], found["original"], found["thumbnail"]) == (True, True, True)
    assert found["letters"] == []
    assert found["usage"]["images"] == 1
    await sees_nothing(system, image, tmp_path)


async def a_failure_of_ones_own(system: System, image: StoredImage) -> list[Message]:
    """An event with the ID of another tenant's that fails, with the stranger's own picture."""
    own = made_image(system.services.storage, tenant=STRANGER)
    model = (image.processingOptions.models or [""])[0]
    own.processingOptions.models = [model]
    await system.services.storage.put_image(own, BROKEN)
    event = FeatureExtractionRequested(
        **_envelope(own, FeatureExtractionRequested),
        data=FeatureExtractionData(
            imageId=own.imageId,
            imagePath="x",
            modelName=model,
            expectedDimension=system.services.model.dimension,
        ),
    )
    event.eventId = extraction_id(image)
    return [Message(EXTRACTION, event)]


@pytest.mark.parametrize("with_an_own_picture", [False, True])
@pytest.mark.parametrize("when", ["first", "last"])
async def test_a_failed_pictures_letter_is_its_tenants_alone(
    system: System, when: str, with_an_own_picture: bool, tmp_path: Path
) -> None:
    image = await system.upload(BROKEN)
    assert image is not None
    if when == "last":
        await system.settle()
    own, system.log = system.log, {}
    forged = a_letter(image)
    if with_an_own_picture:
        forged = await a_failure_of_ones_own(system, image)
    await system.send(*forged)
    await system.settle()
    system.log = own
    await system.settle()
    letters = system.services.letters
    (letter,) = [each async for each in letters.walk(tenant=image.tenantId)]
    assert (letter.letterId, letter.tenantId) == (letter_of(image), image.tenantId)
    assert (letter.imageId, letter.errorCode) == (image.imageId, "UNDECODABLE_IMAGE")
    # What the stranger has is what they wrote.
    (theirs,) = [each async for each in letters.walk(tenant=STRANGER)]
    assert theirs.letterId != letter.letterId
    assert image.correlationId not in str(theirs.to_wire())
    if not with_an_own_picture:
        await sees_nothing(system, image, tmp_path)
        with pytest.raises(NotRetryable):
            await Replay(system.services, system, system.send).retry(theirs)
    assert await Replay(system.services, system, system.send).retry(letter, force=True) == 2
    await system.settle()
    await system.delete(image.imageId)
    await system.settle()
    assert [each async for each in letters.walk(tenant=image.tenantId)] == []


async def test_a_strangers_row_reaches_no_websocket_of_anybody_else(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those on the topic, and one that was in the table before the picture's first report."""
    monkeypatch.setattr(hub, "_POLL_S", 0.05)
    image = await uploaded(system)
    own = row_of(image.imageId, "processing", [], tenantId=image.tenantId)
    done = done_row(image.imageId, models=own.models, tenant=image.tenantId)
    (forged,) = a_status(image)
    path = f"/hub/processing-status?imageId={image.imageId}"
    async with over_http(system, tmp_path) as (web, key):
        theirs = {"X-API-Key": key}
        mine = {"X-API-Key": await tenant_key(web, image.tenantId)}
        tell = web.feed.tell
        # The stranger's row was first.
        web.rows.held[image.imageId] = row_of(image.imageId, "processing", [], tenantId=STRANGER)
        async with web.client.ws_connect(path, headers=theirs) as socket:
            assert (await socket.receive_json())["tenantId"] == STRANGER
            web.rows.held[image.imageId] = own
            tell(own)
            assert await texts(socket) == []
            assert socket.close_code == 4404
        async with web.client.ws_connect(path, headers=mine) as socket:
            assert (await socket.receive_json())["status"] == "processing"
            tell(codec.decode(ImageStatusChanged, codec.encode(forged.event)).data)
            web.rows.held[image.imageId] = done
            tell(done)
            said = await texts(socket)
        assert [(each["tenantId"], each["status"]) for each in said] == [
            (image.tenantId, "completed")
        ]


async def test_an_event_with_another_time_does_not_end_a_row(system: System) -> None:
    image = await uploaded(system)
    await system.settle()
    event = uploaded_event(image)
    event.data.uploadedAt = "2020-01-01T00:00:00.000Z"
    await system.send(Message(UPLOADED, event))
    await system.settle()
    row = await system.row(image.imageId)
    assert row is not None
    assert row.status == "completed"


@pytest.mark.parametrize(
    ("step", "status"), [("Cooking!", "completed"), ("vector_indexing", "x y")]
)
async def test_a_report_of_what_can_be_no_step_is_a_dead_letter_at_once(
    system: System, step: str, status: str
) -> None:
    image = await uploaded(system)
    said = report(Step.IMAGE_PROCESSING, StepStatus.COMPLETED)
    said.step, said.status = step, status
    await system.send(progress(uploaded_event(image), [said], image))
    await system.settle()
    (letter,) = [each async for each in system.services.letters.walk(tenant=image.tenantId)]
    assert (letter.errorCode, letter.attempts) == ("MALFORMED_EVENT", 1)
    row = await system.row(image.imageId)
    assert row is not None
    assert row.status == "completed"
