"""VectorIndexingWorker: a vector becomes a point, the same point at every redelivery."""

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import VECTOR_INDEXING
from deeplens_streams.errors import DimensionMismatch, UnknownModel
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.pipeline.missing_image import drop_event, is_stored
from deeplens_streams.pipeline.progress import progress, report
from deeplens_streams.pipeline.registration import register_stage
from deeplens_streams.services import Services
from deeplens_streams.vectors import VectorPoint, VectorStore, collection_name
from models.events import VectorIndexingRequested, VectorMetadata
from models.images import StoredImage
from models.status import Step, StepStatus

if TYPE_CHECKING:
    import faust


async def process(event: VectorIndexingRequested, services: Services) -> list[Message]:
    """Store the vector and return a report."""
    started = time.perf_counter()
    vectors = services.vectors
    assert vectors is not None, "the index role has a vector engine"
    data = event.data
    # First of all: a stranger's event is to leave no trace.
    image = await services.storage.get_metadata(
        tenant=event.tenantId, image_id=data.imageId, uploaded_at=data.uploadedAt
    )
    take_back = partial(_take_back, event, vectors)
    if image is None:
        return await drop_event(VECTOR_INDEXING, event, services, take_back)
    model = services.model
    if data.modelName != model.name:
        raise UnknownModel(f"This worker has {model.name}, not {data.modelName!r}.")
    vector = np.asarray(data.featureVector, dtype=np.float32)
    if vector.shape != (model.dimension,) or not np.isfinite(vector).all():
        raise DimensionMismatch(
            f"{model.name} makes {model.dimension} finite numbers; the event has {vector.size}."
        )
    await vectors.upsert(
        [VectorPoint(image.imageId, vector, _payload(image, data.vectorMetadata))],
        tenant=image.tenantId,
        model=model.name,
    )
    if not await is_stored(image, services):
        return await drop_event(VECTOR_INDEXING, event, services, take_back)
    stored = report(
        Step.VECTOR_INDEXING,
        StepStatus.COMPLETED,
        started=started,
        model=model.name,
        collection=collection_name(tenant=image.tenantId, model=model.name),
    )
    return [progress(event, [stored], image)]


async def _take_back(event: VectorIndexingRequested, vectors: VectorStore) -> None:
    """Remove the point that may have been stored of the event's own tenant and image."""
    image_id = check_image_id(event.data.imageId)
    with suppress(UnknownModel):  # a stranger's word, of which no point can be
        await vectors.delete([image_id], tenant=event.tenantId, model=event.data.modelName)


def _payload(image: StoredImage, made: VectorMetadata) -> dict[str, Any]:
    """Return what search answers and filters need, so that a search reads no storage.

    By size and checksum an audit knows the original, should all else of the image be lost, and by
    the version what an older preprocessing made.
    """
    return {
        "imageId": image.imageId,
        "fileName": image.fileName,
        "contentType": image.contentType,
        "uploadedBy": image.uploadedBy,
        "uploadedAt": image.uploadedAt,
        "fileSize": image.fileSize,
        "checksumSha256": image.checksumSha256,
        "preprocessingVersion": made.preprocessingVersion,
        "tags": image.tags,
        "hasThumbnail": image.processingOptions.generateThumbnail,
        "metadata": {
            "width": image.metadata.width,
            "height": image.metadata.height,
            "format": image.metadata.format,
        },
    }


def register(app: "faust.App", services: Services, publisher: Publisher) -> None:
    register_stage(
        app,
        VECTOR_INDEXING,
        partial(process, services=services),
        services=services,
        publisher=publisher,
    )
