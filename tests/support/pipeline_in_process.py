"""The pipeline's stages on one picture, in this process and without Kafka."""

from collections.abc import Awaitable, Callable
from typing import Any

from agents import dead_letters, feature_extraction, image_processing, vector_indexing
from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Message, Topic
from deeplens_streams.broker.topology import EXTRACTION, FAILED, INDEXING, PROGRESS, UPLOADED
from deeplens_streams.pipeline.dead_letters import kept_as
from deeplens_streams.pipeline.progress import teller
from deeplens_streams.pipeline.requests import uploaded_event
from deeplens_streams.pipeline.stage import Stage
from deeplens_streams.services import Services
from models.events import (
    Event,
    FeatureExtractionRequested,
    ImageUploaded,
    ProcessingFailed,
    VectorIndexingRequested,
)
from models.images import StoredImage
from models.status import ImageProgress, ImageRow, ImageState, Step
from tables import image_status
from tests.support.stage_messages import Outbox, Stream

Process = Callable[[Any, Services], Awaitable[list[Message]]]

_STAGES: dict[Topic, tuple[str, type[Event], Process, bool]] = {
    UPLOADED: (Step.IMAGE_PROCESSING, ImageUploaded, image_processing.process, False),
    EXTRACTION: (
        Step.FEATURE_EXTRACTION,
        FeatureExtractionRequested,
        feature_extraction.process,
        True,
    ),
    INDEXING: (Step.VECTOR_INDEXING, VectorIndexingRequested, vector_indexing.process, True),
}


async def end_of(image: StoredImage, services: Services) -> str:
    """Bring an uploaded picture to its end; return ``completed`` or the code of its dead letter.

    Its row, the letter that is kept and its vector have been held against each other then.
    """
    outbox = Outbox()
    await outbox.send(Message(UPLOADED, uploaded_event(image)))
    row: ImageRow | None = None
    letters: list[ProcessingFailed] = []
    for topic, event in outbox.sent:  # which grows meanwhile
        if topic in _STAGES:
            await _stage(topic, outbox, services).run(Stream(codec.encode(event)))
        elif isinstance(event, ImageProgress):
            assert topic is PROGRESS
            row = image_status.joined(row, event) or row
        else:
            assert isinstance(event, ProcessingFailed)
            assert topic is FAILED
            await dead_letters.process(event, services)
            letters.append(event)
    assert row is not None
    assert services.vectors is not None
    vector = await services.vectors.get_vector(
        tenant=image.tenantId, model=services.model.name, image_id=image.imageId
    )
    if not letters:
        assert row.status == ImageState.COMPLETED
        assert vector is not None
        assert abs(float(vector @ vector) - 1) < 1e-3
        return row.status
    (letter,) = letters
    kept = await services.letters.find(kept_as(letter.tenantId, letter.eventId))
    assert kept is not None
    assert (kept.imageId, kept.tenantId) == (image.imageId, image.tenantId)
    assert (row.status, row.errorCode) == (ImageState.FAILED, kept.errorCode)
    assert vector is None
    return kept.errorCode


def _stage(topic: Topic, outbox: Outbox, services: Services) -> Stage[Any]:
    name, record, process, by_model = _STAGES[topic]

    async def work(event: Any) -> list[Message]:
        return await process(event, services)

    tell = teller(Step(name), by_model=by_model)
    return Stage(name, record, work, outbox.send, services.breakers, tell)
