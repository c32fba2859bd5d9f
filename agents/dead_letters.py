"""DeadLetterKeeper: keeps what failed where a person can find it, and says so."""

from functools import partial
from typing import TYPE_CHECKING

import structlog

from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import DEAD_LETTERS
from deeplens_streams.pipeline.dead_letters import count_read, kept_as
from deeplens_streams.pipeline.registration import register_stage
from deeplens_streams.pipeline.retry import note_retried
from deeplens_streams.services import Services
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata
from models.events import ProcessingFailed, utc_now
from models.letters import DeadLetter

if TYPE_CHECKING:
    import faust

log = structlog.get_logger()


async def process(event: ProcessingFailed, services: Services) -> list[Message]:
    """Keep the dead letter, count it by step and code, and write one line for it."""
    letter = _letter(event)
    await services.letters.keep(letter)
    if await _is_deleted(letter, services):
        await services.letters.remove(letter.letterId)
        return []
    await note_retried(letter, services)
    count_read(letter.failedStep, letter.errorCode)
    log.warning(
        "picture failed",
        letter_id=letter.letterId,
        step=letter.failedStep,
        code=letter.errorCode,
        reason=letter.errorMessage,
        can_retry=letter.canRetry,
    )
    return []


async def _is_deleted(letter: DeadLetter, services: Services) -> bool:
    """Tell whether its image was deleted: the purge may have come before the letter."""
    tenant, image_id = letter.tenantId, letter.imageId
    if image_id is None or not tenant:
        return False
    try:
        tombstone = await services.tombstones.find(image_id)
        if tombstone is not None:
            return tombstone.tenantId == tenant
        if await services.tombstones.find_purge(tenant=tenant) is None:
            return False
        # With its tenant; the tombstone went, too.
        return await services.storage.get_metadata(tenant=tenant, image_id=image_id) is None
    except DamagedMetadata:
        return False  # a letter about that would come here, too


def _letter(event: ProcessingFailed) -> DeadLetter:
    """Return what is kept; texts of strangers are cut."""
    data = event.data
    return DeadLetter(
        letterId=kept_as(event.tenantId, event.eventId),
        tenantId=event.tenantId,
        imageId=data.imageId,
        failedStep=data.failedStep[:60],
        errorCode=data.errorCode[:60],
        errorMessage=data.errorMessage[:500],
        generation=event.generation,
        attempts=data.retryAttempt,
        canRetry=data.canRetry,
        failedAt=_time(event.timestamp),
        correlationId=event.correlationId,
        stackTrace=data.stackTrace,
        originalEvent=data.originalEvent,
    ).carrying(data)


def _time(timestamp: str) -> str:
    try:
        object_keys.epoch_ms(timestamp)
    except ValueError:
        return utc_now()
    return timestamp


def register(app: "faust.App", services: Services, publisher: Publisher) -> None:
    register_stage(
        app,
        DEAD_LETTERS,
        partial(process, services=services),
        services=services,
        publisher=publisher,
    )
