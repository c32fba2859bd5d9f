"""What becomes of an event whose picture is not stored."""

from collections.abc import Awaitable, Callable

from deeplens_streams.metrics import DROPPED
from deeplens_streams.reports import ending
from deeplens_streams.services import Services
from deeplens_streams.topics import Message
from models.events import Event
from models.images import StoredImage
from models.status import Ending, Step


async def _nothing() -> None:
    """The step stores nothing."""


async def dropped(
    step: Step,
    event: Event,
    services: Services,
    take_back: Callable[[], Awaitable[None]] = _nothing,
) -> list[Message]:
    """Drop the event: its upload was refused, its picture deleted, or it is forged.

    The picture's row, if there is one, is told.

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
    if image is None:
        await take_back()
    DROPPED.labels(step.value).inc()
    return [] if image is not None else [ending(event, Ending.DROPPED)]


async def is_stored(image: StoredImage, services: Services) -> bool:
    """Tell whether a picture is there still; if not, what was just written is behind its end."""
    found = await services.storage.get_metadata(
        tenant=image.tenantId, image_id=image.imageId, uploaded_at=image.uploadedAt
    )
    return found is not None
