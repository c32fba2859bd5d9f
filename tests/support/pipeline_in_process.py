"""The pipeline's stages on one picture, in this process and without Kafka."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from agents import dead_letters, feature_extraction, image_processing, vector_indexing
from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import (
    FAILED,
    FEATURE_EXTRACTION,
    IMAGE_PROCESSING,
    PROGRESS,
    READERS,
    UPLOADED,
    VECTOR_INDEXING,
    StageSpec,
)
from deeplens_streams.pipeline.dead_letters import kept_as
from deeplens_streams.pipeline.progress import failure_reporter
from deeplens_streams.pipeline.requests import uploaded_event
from deeplens_streams.pipeline.stage import Stage
from deeplens_streams.services import Services
from models.events import (
    ProcessingFailed,
    utc_now,
)
from models.images import StoredImage
from models.status import ImageProgress, ImageRow, ImageState
from tables import image_status
from tests.support.stage_messages import Outbox, Stream

Process = Callable[..., Awaitable[list[Message]]]

_PROCESS: dict[StageSpec, Process] = {
    IMAGE_PROCESSING: image_processing.process,
    FEATURE_EXTRACTION: feature_extraction.process,
    VECTOR_INDEXING: vector_indexing.process,
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
        if READERS[topic] in _PROCESS:
            await _stage(READERS[topic], outbox, services).run(Stream(codec.encode(event)))
        elif isinstance(event, ImageProgress):
            assert topic is PROGRESS
            row = image_status.joined(row, event, now=utc_now()) or row
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


def _stage(spec: StageSpec, outbox: Outbox, services: Services) -> Stage[Any]:
    return Stage(
        name=spec.name,
        record=spec.event,
        process=partial(_PROCESS[spec], services=services),
        publish=outbox.send,
        breakers=services.breakers,
        report_failure=failure_reporter(spec),
    )
