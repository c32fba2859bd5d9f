"""Who can write to the topics and knows an image's ID changes nothing of another tenant's."""

from collections.abc import Callable

import pytest

from deeplens_streams import deletion
from deeplens_streams.replay import uploaded_event
from deeplens_streams.reports import ending, progress, report
from deeplens_streams.topics import EXTRACTION, INDEXING, UPLOADED, Message
from models.deletion import Tombstone
from models.events import (
    Event,
    FeatureExtractionData,
    FeatureExtractionRequested,
    ImageUploaded,
    VectorIndexingData,
    VectorIndexingRequested,
    VectorMetadata,
)
from models.images import StoredImage
from models.status import Ending, Step, StepStatus
from tests.behaviour.test_kill_points import PICTURE, Fuse, System, ledger

STRANGER = "evil-corp"


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


def an_ending(image: StoredImage) -> list[Message]:
    return [ending(forged(image), Ending.DELETED, image.uploadedAt)]


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


def _envelope(image: StoredImage, record: type[Event]) -> dict[str, str]:
    return {
        "eventType": record.EVENT_TYPE,
        "eventId": "forged",
        "tenantId": STRANGER,
        "correlationId": "forged",
    }


Forgery = Callable[[StoredImage], list[Message]]


@pytest.mark.parametrize(
    "forgery", [an_upload, an_extraction, a_vector, a_failure, an_ending, a_deletion]
)
@pytest.mark.parametrize("when", ["first", "last"])
async def test_a_strangers_events_change_nothing(
    system: System, forgery: Forgery, when: str
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


@pytest.mark.parametrize(("step", "status"), [("cooking", "completed"), ("vector_indexing", "x")])
async def test_a_report_that_nobody_knows_is_a_dead_letter_at_once(
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
