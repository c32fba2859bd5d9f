"""Deleting images: a tombstone first, then every part, in steps that survive a crash.

Once the metadata object is gone, every stage drops what is still on its way; a stage that was at
work at that moment looks again behind its last write, and takes that back.
"""

from collections.abc import Awaitable, Callable
from typing import cast

import structlog

from deeplens_streams.letters import letter_id
from deeplens_streams.replay import event_id
from deeplens_streams.reports import ending
from deeplens_streams.services import Services
from deeplens_streams.topics import DELETED, Message
from models.deletion import ImageDeleted, ImageDeletedData, PurgeStep, Tombstone
from models.events import derived_id, utc_now
from models.images import StoredImage
from models.status import Ending, ImageProgress, Step

log = structlog.get_logger()


async def begin(
    image: StoredImage, services: Services, *, generation: int = 1, refused: bool = False
) -> Tombstone:
    """Make an image be gone for everybody; its parts are still to be purged.

    Parameters
    ----------
    generation : the last of the image, as far as that is known.
    refused : its upload was refused, though Kafka may have its event.
    """
    tombstone = Tombstone(
        imageId=image.imageId,
        tenantId=image.tenantId,
        correlationId=image.correlationId,
        uploadedAt=image.uploadedAt,
        requestedAt=utc_now(),
        originalKey=image.originalKey,
        thumbnailKey=image.thumbnailKey,
        checksumSha256=image.checksumSha256,
        models=image.processingOptions.models or [],
        steps={},
        generation=generation,
        refused=refused,
        # The room of a refused upload is given back by who took it.
        fileSize=None if refused else image.fileSize,
        lease=None if refused else image.lease,
    )
    # 1. tombstone
    await services.tombstones.put(tombstone)
    # 2. metadata object; its pointer stays, and leads to the tombstone
    await services.storage.remove_metadata(image)
    return tombstone


def messages(tombstone: Tombstone) -> list[Message]:
    """Return what has a deleted image purged, and its row say that it is deleted."""
    event = ImageDeleted(
        eventType=ImageDeleted.EVENT_TYPE,
        eventId=derived_id("deleted", tombstone.imageId),
        timestamp=utc_now(),
        tenantId=tombstone.tenantId,
        correlationId=tombstone.correlationId,
        data=ImageDeletedData(imageId=tombstone.imageId),
    )
    end = ending(event, Ending.DELETED, tombstone.uploadedAt)
    # For a picture that does not count yet: its room is free again.
    said = cast(ImageProgress, end.event).data
    said.fileSize, said.lease = tombstone.fileSize, tombstone.lease
    return [Message(DELETED, event), end]


def forgotten(tombstone: Tombstone) -> Message:
    """Return what has the row of a purged image go, because its tenant goes."""
    event = messages(tombstone)[0].event
    return ending(event, Ending.PURGED)


async def purge(tombstone: Tombstone, services: Services) -> None:
    """Remove every part of a deleted image that is not gone yet; may be repeated."""
    for step, work in _STEPS.items():
        if step.value in tombstone.steps:
            continue
        await work(tombstone, services)
        tombstone.steps[step.value] = utc_now()
        if step is PurgeStep.STATE:
            tombstone.completedAt = tombstone.steps[step.value]
        await services.tombstones.put(tombstone)


def left(tombstone: Tombstone) -> list[PurgeStep]:
    """Return what is still to be purged."""
    return [step for step in PurgeStep if step.value not in tombstone.steps]


async def _metadata(tombstone: Tombstone, services: Services) -> None:
    await services.storage.remove_metadata(tombstone)


async def _vector(tombstone: Tombstone, services: Services) -> None:
    vectors = services.vectors
    assert vectors is not None, "the index role has a vector engine"
    for model in tombstone.models:
        await vectors.delete([tombstone.imageId], tenant=tombstone.tenantId, model=model)


async def _thumbnail(tombstone: Tombstone, services: Services) -> None:
    await services.storage.delete_object(tenant=tombstone.tenantId, key=tombstone.thumbnailKey)


async def _original(tombstone: Tombstone, services: Services) -> None:
    await services.storage.delete_object(tenant=tombstone.tenantId, key=tombstone.originalKey)


async def _duplicate_key(tombstone: Tombstone, services: Services) -> None:
    await services.claims.release(
        tenant=tombstone.tenantId,
        checksum=tombstone.checksumSha256,
        image_id=tombstone.imageId,
    )


async def _dead_letters(tombstone: Tombstone, services: Services) -> None:
    """Remove the letters of every generation.

    Behind those of which the row knew, a further one came of a letter of the last.
    """
    generation, found = 1, True
    while found or generation <= tombstone.generation:
        found = False
        for step in (Step.IMAGE_PROCESSING, Step.FEATURE_EXTRACTION, Step.VECTOR_INDEXING):
            for model in (None,) if step is Step.IMAGE_PROCESSING else tombstone.models:
                asked = event_id(tombstone, step, model, generation)
                known = letter_id(tombstone.tenantId, step, asked)
                if await services.letters.find(known) is not None:
                    found = True
                    await services.letters.remove(known)
        generation += 1


async def _state(_tombstone: Tombstone, _services: Services) -> None:
    """The row was told when the tombstone was written, and is told again at the end."""


_STEPS: dict[PurgeStep, Callable[[Tombstone, Services], Awaitable[None]]] = {
    PurgeStep.METADATA: _metadata,
    PurgeStep.VECTOR: _vector,
    PurgeStep.THUMBNAIL: _thumbnail,
    PurgeStep.ORIGINAL: _original,
    PurgeStep.DUPLICATE_KEY: _duplicate_key,
    PurgeStep.DEAD_LETTERS: _dead_letters,
    PurgeStep.STATE: _state,
}
