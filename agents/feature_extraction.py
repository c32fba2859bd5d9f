"""FeatureExtractionWorker: a picture is decoded once, for its thumbnail and its vector."""

import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import FEATURE_EXTRACTION, INDEXING
from deeplens_streams.errors import DimensionMismatch, OriginalMissing, UnknownModel
from deeplens_streams.features.base import Extraction, ModelSpec
from deeplens_streams.pipeline.missing_image import drop_event, is_stored
from deeplens_streams.pipeline.progress import progress, report
from deeplens_streams.pipeline.registration import register_stage
from deeplens_streams.pipeline.requests import event_id
from deeplens_streams.services import Services
from deeplens_streams.storage import ImageStorage
from models.events import (
    FeatureExtractionRequested,
    VectorIndexingData,
    VectorIndexingRequested,
    VectorMetadata,
    utc_now,
)
from models.images import StoredImage
from models.status import Step, StepStatus

if TYPE_CHECKING:
    import faust


async def process(event: FeatureExtractionRequested, services: Services) -> list[Message]:
    """Store the thumbnail, and return the vector with a report of both steps."""
    started = time.perf_counter()
    features = services.features
    assert features is not None, "the extract role has a feature extractor"
    # First of all: a stranger's event is to leave no trace.
    image = await services.storage.get_metadata(
        tenant=event.tenantId,
        image_id=event.data.imageId,
        uploaded_at=event.data.uploadedAt,
    )
    if image is None:
        return await _dropped(event, event.data.uploadedAt, services)
    model = features.model
    if event.data.modelName != model.name:
        raise UnknownModel(f"This worker has {model.name}, not {event.data.modelName!r}.")
    if event.data.expectedDimension != model.dimension:
        raise DimensionMismatch(
            f"{model.name} makes {model.dimension} numbers, not {event.data.expectedDimension}."
        )
    # The key is the one that was stored, not the one that the event names.
    data = await services.storage.get(tenant=image.tenantId, key=image.originalKey)
    if data is None:
        if await is_stored(image, services):
            raise OriginalMissing
        return await _dropped(event, image.uploadedAt, services)
    wants_thumbnail = image.processingOptions.generateThumbnail
    extraction = await features.extract(
        data, thumbnail_px=services.settings.thumbnail_px if wants_thumbnail else None
    )
    if extraction.thumbnail is not None:
        await services.storage.put_thumbnail(
            tenant=image.tenantId, key=image.thumbnailKey, data=extraction.thumbnail
        )
        if not await is_stored(image, services):
            return await _dropped(event, image.uploadedAt, services)
    thumbnail = StepStatus.COMPLETED if wants_thumbnail else StepStatus.SKIPPED
    reports = [
        report(Step.THUMBNAIL_GENERATION, thumbnail),
        report(Step.FEATURE_EXTRACTION, StepStatus.COMPLETED, started=started, model=model.name),
    ]
    requested = _indexing_requested(event, image, extraction, model)
    return [Message(INDEXING, requested), progress(event, reports, image)]


def _indexing_requested(
    event: FeatureExtractionRequested,
    image: StoredImage,
    extraction: Extraction,
    model: ModelSpec,
) -> VectorIndexingRequested:
    return VectorIndexingRequested.following(
        event,
        VectorIndexingData(
            imageId=image.imageId,
            modelName=model.name,
            # float32 as it is: half the bytes of a list of Python floats.
            featureVector=cast(Any, extraction.vector),
            vectorMetadata=VectorMetadata(
                extractionTime=utc_now(),
                processingTimeMs=round(extraction.processing_ms, 3),
                modelVersion=model.version,
                preprocessingVersion=extraction.preprocessing,
            ),
            imageMetadata={
                "width": extraction.width,
                "height": extraction.height,
                "format": extraction.format,
            },
            uploadedAt=image.uploadedAt,
        ),
        eventId=event_id(image, Step.VECTOR_INDEXING, model.name, event.generation),
    )


async def _dropped(
    event: FeatureExtractionRequested, uploaded_at: str | None, services: Services
) -> list[Message]:
    take_back = partial(_take_back, event, uploaded_at, services.storage)
    return await drop_event(FEATURE_EXTRACTION, event, services, take_back)


async def _take_back(
    event: FeatureExtractionRequested, uploaded_at: str | None, storage: ImageStorage
) -> None:
    """Remove the thumbnail that may have been stored of the event's own tenant and image."""
    try:
        key = storage.thumbnail_key(
            tenant=event.tenantId, image_id=event.data.imageId, uploaded_at=uploaded_at or ""
        )
    except ValueError:  # no picture of ours has such a time
        return
    await storage.delete_object(tenant=event.tenantId, key=key)


def register(app: "faust.App", services: Services, publisher: Publisher) -> None:
    register_stage(
        app,
        FEATURE_EXTRACTION,
        partial(process, services=services),
        services=services,
        publisher=publisher,
    )
