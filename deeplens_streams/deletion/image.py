"""Deleting images: a tombstone first, then every part, in steps that survive a crash.

Once the metadata object is gone, every stage drops what is still on its way; a stage that was at
work at that moment looks again behind its last write, and takes that back.
"""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import structlog

from deeplens_streams.broker.topics import Message, Publish
from deeplens_streams.broker.topology import DELETED, STEP_STAGES
from deeplens_streams.deletion.unremovable import Unremovable
from deeplens_streams.errors import BrokerRefused, DependencyUnavailable, VectorsRefused
from deeplens_streams.pipeline.dead_letters import letter_id
from deeplens_streams.pipeline.progress import ending
from deeplens_streams.pipeline.requests import event_id
from deeplens_streams.services import Services
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata
from models.deletion import ImageDeleted, ImageDeletedData, PurgeStep, Tombstone
from models.events import derived_id, utc_now, wire_time
from models.images import StoredImage
from models.status import Ending

log = structlog.get_logger()


async def begin(
    image: StoredImage, services: Services, *, generation: int = 1, refused: bool = False
) -> Tombstone:
    """Make an image be gone for everybody, certainly: `announce` has its parts purged.

    Should that not be done, because the process is killed or Kafka is away, `finish` does it.

    Parameters
    ----------
    generation : the last of the image, as far as that is known.
    refused : its upload was refused, though Kafka may have its event.
    """
    tombstone = _tombstone(image, generation=generation, refused=refused)
    # 1. what is begun
    await services.tombstones.begin(tombstone)
    # 2. tombstone, 3. metadata object
    await _bury(tombstone, services)
    return tombstone


async def begin_lost(tombstone: Tombstone, services: Services) -> None:
    """Begin the deletion of an image that no metadata object tells of, so that `finish` ends it.

    Nothing but a tombstone tells `finish` that there is something to do, so that comes first.
    """
    # 1. pointer, 2. tombstone, 3. that it is begun, 4. metadata object, which may be damaged
    ms = object_keys.epoch_ms(tombstone.uploadedAt)
    await services.inventory.point(tombstone.imageId, tenant=tombstone.tenantId, ms=ms)
    await services.tombstones.put(tombstone)
    await services.tombstones.begin(tombstone)
    await services.storage.remove_metadata(tombstone)


async def announce(tombstone: Tombstone, services: Services, publish: Publish) -> None:
    """Tell Kafka of a deletion that was begun; from here on the purge is Kafka's to remember.

    Raises
    ------
    BrokerUnavailable, StorageUnavailable
        It may know or not; `finish` tells it again.
    """
    # 4. event
    await publish(*messages(tombstone))
    # 5. that it was begun goes
    await services.tombstones.sent(tombstone.imageId)


async def finish(
    services: Services, publish: Publish, unremovable: Unremovable | None = None
) -> int:
    """Announce every deletion that was begun and not announced; return how many that were.

    One that its own worker is just announcing may be among them: twice is as good as once.

    Parameters
    ----------
    unremovable : takes what storage refuses to have removed or read.

    Raises
    ------
    BrokerUnavailable, StorageUnavailable
        The others are left to the next time.
    """
    known = unremovable or Unremovable(services.breakers, "deletions")
    count = 0
    async with aclosing(services.tombstones.begun(refused=known.refused)) as begun:
        async for image_id, tombstone in begun:
            if known.rests(image_id):
                known.count += 1
                continue
            try:
                await _finish(image_id, tombstone, services, publish)
            except DependencyUnavailable as error:
                await known.refused(image_id, error)
            except BrokerRefused:
                log.exception("a deletion is not announced", image_id=image_id)
            else:
                count += 1
    return count


async def _finish(
    image_id: str, begun: Tombstone | None, services: Services, publish: Publish
) -> None:
    try:
        # In this order: the tombstone is there before the metadata object goes.
        image = await services.storage.find(image_id)
        tombstone = await services.tombstones.find(image_id)
    except DamagedMetadata:
        image, tombstone = None, begun
    if tombstone is None and image is not None:
        tombstone = begun
    if tombstone is None or tombstone.completedAt is not None:
        # Nothing is left of it, or it never was begun in a way that anybody can read.
        await services.tombstones.sent(image_id)
        return
    if image is not None or tombstone is begun:
        await _bury(tombstone, services)
    await announce(tombstone, services, publish)


async def bury(image: StoredImage, services: Services) -> Tombstone:
    """Make an image be gone for everybody, as a part of a purge that Kafka remembers."""
    tombstone = _tombstone(image)
    await _bury(tombstone, services)
    return tombstone


async def _bury(tombstone: Tombstone, services: Services) -> None:
    # The tombstone is first. The pointer of the metadata object stays, and leads to it.
    await services.tombstones.put(tombstone)
    await services.storage.remove_metadata(tombstone)


def _tombstone(image: StoredImage, *, generation: int = 1, refused: bool = False) -> Tombstone:
    return Tombstone(
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


def messages(tombstone: Tombstone) -> list[Message]:
    """Return what has a deleted image purged, and its row say that it is deleted."""
    event = ImageDeleted.new(
        tombstone.tenantId,
        ImageDeletedData(imageId=tombstone.imageId),
        eventId=derived_id("deleted", tombstone.imageId),
        correlationId=tombstone.correlationId,
    )
    return [Message(DELETED, event), ended(tombstone)]


def ended(tombstone: Tombstone) -> Message:
    """Return what has the row of a deleted image say so."""
    return ending(tombstone, Ending.DELETED, uploaded_at=tombstone.uploadedAt)


def forgotten(tombstone: Tombstone) -> Message:
    """Return what has the row of a purged image go, because its tenant goes."""
    return ending(tombstone, Ending.PURGED)


async def purge(tombstone: Tombstone, services: Services) -> None:
    """Remove every part of a deleted image that is not gone yet; may be repeated.

    Raises
    ------
    DependencyUnavailable, VectorsRefused
        What is needed is away; or it refuses to have a part removed, and the others are gone.
    """
    refusal: DependencyUnavailable | VectorsRefused | None = None
    for step, work in _STEPS.items():
        if step.value in tombstone.steps:
            continue
        if step is PurgeStep.STATE and refusal is not None:
            raise refusal
        try:
            await work(tombstone, services)
        except DependencyUnavailable as error:
            if not await services.breakers.is_alone(error):
                raise
            refusal = refusal or error
            continue
        except VectorsRefused as error:
            refusal = refusal or error
            continue
        tombstone.steps[step.value] = utc_now()
        if step is PurgeStep.STATE:
            tombstone.completedAt = tombstone.steps[step.value]
        await services.tombstones.put(tombstone)


def is_forgettable(tombstone: Tombstone, services: Services) -> bool:
    """Tell whether nothing is left of an image for so long that nobody needs to know of it."""
    before = datetime.now(UTC) - timedelta(days=services.settings.tombstone_days)
    return tombstone.completedAt is not None and tombstone.completedAt < wire_time(before)


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
    """Remove the original, and what repairs have kept of the image."""
    await services.storage.delete_object(tenant=tombstone.tenantId, key=tombstone.originalKey)
    await services.trash.remove_image(tenant=tombstone.tenantId, image_id=tombstone.imageId)


async def _duplicate_key(tombstone: Tombstone, services: Services) -> None:
    if not tombstone.checksumSha256:
        return  # nobody could tell; without its image, the claim holds nobody up
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
        for step, stage in STEP_STAGES.items():
            for model in tombstone.models if stage.by_model else (None,):
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
