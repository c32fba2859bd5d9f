"""What an event of a picture that is not stored removes: the event's own leavings, and no more."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from unittest.mock import patch

import numpy as np
import pytest

from agents import feature_extraction, vector_indexing
from deeplens_streams.broker.topics import Message
from deeplens_streams.deletion import image as deletion
from deeplens_streams.errors import OriginalMissing, StorageUnavailable
from deeplens_streams.services import Services
from deeplens_streams.storage import ObjectImages, object_keys
from deeplens_streams.testing.vectors import MemoryVectors
from deeplens_streams.vectors import VectorPoint
from models.events import (
    FeatureExtractionData,
    FeatureExtractionRequested,
    VectorIndexingData,
    VectorIndexingRequested,
    VectorMetadata,
)
from models.images import StoredImage
from models.status import Ending, ImageProgress
from tests.support.killed_systems import Fuse, System
from tests.support.stored_images import image as made_image

STRANGER = "evil-corp"


@dataclass
class Holdings:
    """A picture with a thumbnail and a point, and the same of a stranger under its ID."""

    services: Services
    image: StoredImage

    async def of(self, tenant: str) -> tuple[bool, bool]:
        """Tell whether a tenant has a thumbnail and a point under the picture's ID."""
        assert self.services.vectors is not None
        thumbnail = await self.services.storage.size(tenant=tenant, key=self.key(tenant))
        points = await self.services.vectors.present(
            [self.image.imageId], tenant=tenant, model=self.services.model.name
        )
        return thumbnail is not None, bool(points)

    def key(self, tenant: str) -> str:
        return self.services.storage.thumbnail_key(
            tenant=tenant, image_id=self.image.imageId, uploaded_at=self.image.uploadedAt
        )

    async def extract(self, tenant: str, at: str | None = None) -> list[Message]:
        """Have an event of the tenant about the picture processed."""
        event = FeatureExtractionRequested(
            eventType=FeatureExtractionRequested.EVENT_TYPE,
            tenantId=tenant,
            correlationId="c",
            data=FeatureExtractionData(
                imageId=self.image.imageId,
                imagePath=self.image.thumbnailKey,
                modelName=self.services.model.name,
                expectedDimension=self.services.model.dimension,
                uploadedAt=at or self.image.uploadedAt,
            ),
        )
        return await feature_extraction.process(event, self.services)

    async def index(
        self, tenant: str, at: str | None = None, *, model: str | None = None
    ) -> list[Message]:
        """Have an event of the tenant about the picture processed."""
        event = VectorIndexingRequested(
            eventType=VectorIndexingRequested.EVENT_TYPE,
            tenantId=tenant,
            correlationId="c",
            data=VectorIndexingData(
                imageId=self.image.imageId,
                modelName=model or self.services.model.name,
                featureVector=[1.0],
                vectorMetadata=VectorMetadata(
                    extractionTime="", processingTimeMs=1.0, modelVersion="1"
                ),
                uploadedAt=at or self.image.uploadedAt,
            ),
        )
        return await vector_indexing.process(event, self.services)


@pytest.fixture(params=[False, True], ids=["collection", "shared"])
async def held(request: pytest.FixtureRequest) -> Holdings:
    vectors = MemoryVectors(shared=request.param)
    services = replace(System(Fuse()).services, vectors=vectors)
    image = made_image(services.storage)
    held = Holdings(services, image)
    await services.storage.put_image(image, b"a picture")
    vector = np.ones(services.model.dimension, dtype=np.float32)
    payload = {"imageId": image.imageId, "uploadedAt": image.uploadedAt}
    for tenant in (image.tenantId, STRANGER):
        await services.storage.put_thumbnail(tenant=tenant, key=held.key(tenant), data=b"small")
        point = VectorPoint(image.imageId, vector, payload)
        await vectors.upsert([point], tenant=tenant, model=services.model.name)
        assert await held.of(tenant) == (True, True)
    return held


async def test_a_missing_original_is_called_so(held: Holdings) -> None:
    """Its bytes are not damaged: brought back from a backup, they are extracted at a retry."""
    services, image = held.services, held.image
    await services.storage.delete_object(tenant=image.tenantId, key=image.originalKey)
    with pytest.raises(OriginalMissing) as caught:
        await held.extract(image.tenantId)
    assert (caught.value.code, caught.value.retryable) == ("ORIGINAL_MISSING", True)


async def test_an_original_that_is_deleted_while_it_is_asked_for_is_none_missing(
    held: Holdings, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, image = held.services.storage, held.image

    async def get(*, tenant: str, key: str) -> bytes | None:
        await storage.delete_metadata(tenant=tenant, image_id=image.imageId)
        await storage.delete_object(tenant=tenant, key=key)
        return None

    monkeypatch.setattr(storage, "get", get)
    (message,) = await held.extract(image.tenantId)
    assert isinstance(message.event, ImageProgress)
    assert message.event.data.ending == Ending.DROPPED
    assert (await held.of(image.tenantId))[0] is False


@pytest.mark.parametrize("version", [None, 2])
async def test_a_point_keeps_which_preprocessing_made_it(
    held: Holdings, version: int | None
) -> None:
    """The extraction's word goes from its event into the payload; an older one says nothing."""
    services, image = held.services, held.image
    vector = np.ones(services.model.dimension) / services.model.dimension**0.5
    event = VectorIndexingRequested(
        eventType=VectorIndexingRequested.EVENT_TYPE,
        tenantId=image.tenantId,
        correlationId="c",
        data=VectorIndexingData(
            imageId=image.imageId,
            modelName=services.model.name,
            featureVector=vector.tolist(),
            vectorMetadata=VectorMetadata(
                extractionTime="",
                processingTimeMs=1.0,
                modelVersion="1",
                preprocessingVersion=version,
            ),
            uploadedAt=image.uploadedAt,
        ),
    )
    await vector_indexing.process(event, services)
    assert services.vectors is not None
    place = {"tenant": image.tenantId, "model": services.model.name}
    point = await services.vectors.get_point(**place, image_id=image.imageId)
    assert point is not None
    assert point.payload["preprocessingVersion"] == version
    assert point.payload["hasThumbnail"] is image.processingOptions.generateThumbnail
    assert not [value for value in point.payload.values() if "/api/" in str(value)]
    told = await services.vectors.preprocessing([image.imageId], **place)
    assert told == {image.imageId: version or 0}


@pytest.mark.parametrize("refused", [True, False])
async def test_what_is_left_of_a_picture_that_is_gone(held: Holdings, refused: bool) -> None:
    """It was refused and its tombstone is gone again; or it was deleted a moment ago."""
    image, tenant = held.image, held.image.tenantId
    if refused:
        await held.services.storage.remove_metadata(image)
        await held.services.storage.delete_object(tenant=tenant, key=image.originalKey)
    else:
        await deletion.begin(image, held.services)
    assert len(await held.extract(tenant)) == 1  # the row is told
    assert await held.of(tenant) == (False, True)
    assert len(await held.index(tenant)) == 1
    assert await held.of(tenant) == (False, False)
    assert await held.of(STRANGER) == (True, True)


@pytest.mark.parametrize("without_pointer", [True, False])
async def test_nothing_is_taken_back_of_a_picture_whose_metadata_object_is_lost(
    held: Holdings, without_pointer: bool
) -> None:
    """Nobody has deleted it: an audit makes the object again, and needs what is left."""
    image, tenant = held.image, held.image.tenantId
    await held.services.storage.remove_metadata(image)
    if without_pointer:
        key = object_keys.pointer_key(image.imageId)
        await held.services.storage._blobs.delete(key, action="lose")  # type: ignore[attr-defined]
    assert (await held.extract(tenant), await held.index(tenant)) == ([], [])
    assert await held.of(tenant) == (True, True)


async def test_a_strangers_event_touches_what_is_the_strangers(held: Holdings) -> None:
    await held.extract(STRANGER)
    await held.index(STRANGER)
    assert await held.of(held.image.tenantId) == (True, True)
    assert await held.of(STRANGER) == (False, False)


@pytest.mark.parametrize("of_the_day", [True, False])
async def test_an_event_with_another_time_touches_nothing_of_a_picture_that_is_there(
    held: Holdings, of_the_day: bool
) -> None:
    other = datetime.fromisoformat(held.image.uploadedAt) + timedelta(
        milliseconds=1, days=0 if of_the_day else 1
    )
    tenant, at = held.image.tenantId, other.isoformat()
    assert (await held.extract(tenant, at), await held.index(tenant, at)) == ([], [])
    assert await held.of(tenant) == (True, True)


@pytest.mark.parametrize("at", ["yesterday", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z"])
async def test_what_no_picture_can_have_is_dropped_like_any_other(held: Holdings, at: str) -> None:
    assert len(await held.extract(STRANGER, at)) == 1
    assert len(await held.index(STRANGER, at, model="../resnet_50")) == 1
    assert await held.of(STRANGER) == (True, True)


async def test_nothing_is_removed_while_storage_is_broken(held: Holdings) -> None:
    """A missing bucket and a wrong key look like a missing object."""
    await held.services.storage.remove_metadata(held.image)
    with patch.object(ObjectImages, "ping", side_effect=StorageUnavailable):
        for process in (held.extract, held.index):
            with pytest.raises(StorageUnavailable):
                await process(held.image.tenantId)
    assert await held.of(held.image.tenantId) == (True, True)
