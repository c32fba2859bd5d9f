"""ImageProcessingWorker: an uploaded picture becomes one extraction request for each model."""

import time
from functools import partial
from typing import TYPE_CHECKING

from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import EXTRACTION, IMAGE_PROCESSING
from deeplens_streams.errors import UnknownModel
from deeplens_streams.pipeline.missing_image import drop_event
from deeplens_streams.pipeline.progress import progress, report
from deeplens_streams.pipeline.registration import register_stage
from deeplens_streams.pipeline.requests import event_id
from deeplens_streams.services import Services
from models.events import (
    ExtractionOptions,
    FeatureExtractionData,
    FeatureExtractionRequested,
    ImageUploaded,
    RetryPolicy,
)
from models.status import Step, StepStatus

if TYPE_CHECKING:
    import faust


async def process(event: ImageUploaded, services: Services) -> list[Message]:
    """Return a report and one extraction request for each model of the picture."""
    started = time.perf_counter()
    image = await services.storage.get_metadata(
        tenant=event.tenantId,
        image_id=event.data.imageId,
        uploaded_at=event.data.uploadedAt,
    )
    if image is None:
        return await drop_event(IMAGE_PROCESSING, event, services)
    model = services.model
    requests = []
    for name in image.processingOptions.models or []:
        if name != model.name:
            raise UnknownModel(f"This system has no model {name!r}; it has {model.name}.")
        requests.append(
            FeatureExtractionRequested.following(
                event,
                FeatureExtractionData(
                    imageId=image.imageId,
                    imagePath=image.originalKey,
                    modelName=model.name,
                    modelVersion=model.version,
                    expectedDimension=model.dimension,
                    extractionOptions=ExtractionOptions(),
                    uploadedAt=image.uploadedAt,
                ),
                eventId=event_id(image, Step.FEATURE_EXTRACTION, name, event.generation),
                retryPolicy=RetryPolicy(),
            )
        )
    done = report(Step.IMAGE_PROCESSING, StepStatus.COMPLETED, started=started)
    return [
        progress(event, [done], image),
        *(Message(EXTRACTION, request) for request in requests),
    ]


def register(app: "faust.App", services: Services, publisher: Publisher) -> None:
    register_stage(
        app,
        IMAGE_PROCESSING,
        partial(process, services=services),
        services=services,
        publisher=publisher,
    )
