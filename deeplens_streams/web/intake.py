"""Accepting a picture: four durable writes in order, and none left when one fails."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from deeplens_streams.errors import StorageUnavailable
from deeplens_streams.storage.base import ImageStorage
from models.events import ImageUploaded, ImageUploadedData
from models.images import StoredImage

log = structlog.get_logger()

#: Seconds that the three writes to storage may take together.
STORE_TIMEOUT_S = 60.0
#: Attempts to remove what a refused upload left, and the wait before the second, doubling.
_UNDO_ATTEMPTS = 6
_UNDO_BACKOFF_S = 0.5
#: Seconds that the client's answer waits for the removal; it goes on behind the answer.
_UNDO_PATIENCE_S = 3.0

#: Removals under way: the event loop itself holds tasks only weakly.
_undoing: set[asyncio.Task[None]] = set()

Publish = Callable[[ImageUploaded], Awaitable[None]]


async def accept(
    image: StoredImage, *, source: Path | bytes, storage: ImageStorage, publish: Publish
) -> None:
    """Make the picture durable; when this returns, every stage will see it.

    Raises
    ------
    StorageUnavailable, StorageFull, BrokerUnavailable
        One write failed; what the others wrote is removed.
    """
    try:
        # 1. bytes, 2. pointer, 3. metadata object
        await _store(image, source, storage)
        # 4. event
        await publish(uploaded_event(image))
    except BaseException:  # a cancelled request leaves nothing, either
        await _undo(image, storage)
        raise


async def _store(image: StoredImage, source: Path | bytes, storage: ImageStorage) -> None:
    try:
        async with asyncio.timeout(STORE_TIMEOUT_S):
            await storage.put_image(image, source)
    except TimeoutError:
        raise StorageUnavailable from None


def uploaded_event(image: StoredImage) -> ImageUploaded:
    return ImageUploaded(
        eventType=ImageUploaded.EVENT_TYPE,
        eventId=image.correlationId,
        correlationId=image.correlationId,
        timestamp=image.uploadedAt,
        tenantId=image.tenantId,
        data=ImageUploadedData(
            imageId=image.imageId,
            fileName=image.fileName,
            filePath=image.originalKey,
            fileSize=image.fileSize,
            contentType=image.contentType,
            uploadedBy=image.uploadedBy,
            checksumSha256=image.checksumSha256,
            metadata=image.metadata,
            uploadedAt=image.uploadedAt,
        ),
        processingOptions=image.processingOptions,
    )


async def _undo(image: StoredImage, storage: ImageStorage) -> None:
    """Remove a refused picture; waits a little, and goes on behind if that is not enough."""
    task = asyncio.create_task(_remove(image, storage))
    _undoing.add(task)
    task.add_done_callback(_undoing.discard)
    await asyncio.wait({task}, timeout=_UNDO_PATIENCE_S)


async def _remove(image: StoredImage, storage: ImageStorage) -> None:
    for attempt in range(_UNDO_ATTEMPTS):
        try:
            # The metadata object goes first: without it, a stage drops the event.
            await storage.delete_metadata(tenant=image.tenantId, image_id=image.imageId)
            await storage.delete_object(tenant=image.tenantId, key=image.originalKey)
        except Exception as error:  # whatever it is, the next attempt may succeed
            log.warning("refused upload not removed yet", image_id=image.imageId, error=repr(error))
            await asyncio.sleep(_UNDO_BACKOFF_S * 2**attempt)
        else:
            return
    log.error("refused upload left behind", image_id=image.imageId, tenant=image.tenantId)
