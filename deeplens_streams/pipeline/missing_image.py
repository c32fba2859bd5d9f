"""What becomes of an event whose picture is not stored."""

from collections.abc import Awaitable, Callable

from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import StageSpec
from deeplens_streams.metrics import DROPPED
from deeplens_streams.pipeline.progress import ending
from deeplens_streams.services import Services
from deeplens_streams.storage import image_objects, object_keys
from models.events import Event
from models.images import StoredImage
from models.status import Ending


async def _nothing() -> None:
    """The step stores nothing."""


async def drop_event(
    stage: StageSpec,
    event: Event,
    services: Services,
    take_back: Callable[[], Awaitable[None]] = _nothing,
) -> list[Message]:
    """Drop the event: its upload was refused, its picture deleted, or it is forged.

    The picture's row, if there is one, is told. But where the original is there and nobody has
    deleted the picture, its metadata object is lost: nothing of it is taken back or ended, and an
    audit makes the object again.

    Parameters
    ----------
    take_back : removes what the step stores of the event's tenant and image: an attempt that was
        cut off may have stored it behind the picture's end, and its purge does not come again.

    Raises
    ------
    StorageUnavailable
        Storage does not work, so what it does not have may be there: a missing bucket and a
        wrong key look like a missing object.
    """
    await services.storage.ping()
    # An event that names another time than the picture's is not of the picture.
    image_id = event.image_id or ""
    image = await services.storage.get_metadata(tenant=event.tenantId, image_id=image_id)
    DROPPED.labels(stage.name).inc()
    if image is not None or await _is_lost(event, services):
        return []
    await take_back()
    return [ending(event, Ending.DROPPED)]


async def _is_lost(event: Event, services: Services) -> bool:
    """Tell whether an image without metadata object was accepted, and not deleted.

    Who refuses an upload removes its original before its tombstone goes, as every purge does.
    """
    tenant, image_id = event.tenantId, event.image_id or ""
    try:
        ms = object_keys.epoch_ms(getattr(event.data, "uploadedAt", None) or "")
    except ValueError:  # no picture of ours has such a time
        return False
    if await services.inventory.find_original(tenant=tenant, image_id=image_id, ms=ms) is None:
        return False
    key = object_keys.tombstone_key(tenant=tenant, image_id=image_id, ms=ms)
    return not await services.inventory.has(key)


async def is_stored(image: StoredImage, services: Services) -> bool:
    """Tell whether a picture is there still; if not, what was just written is behind its end."""
    return await services.inventory.has(image_objects.metadata_key_of(image))
