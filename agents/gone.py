"""What becomes of an event whose picture is not stored."""

from deeplens_streams.metrics import DROPPED
from deeplens_streams.reports import ending
from deeplens_streams.services import Services
from deeplens_streams.topics import Message
from models.events import Event
from models.images import StoredImage
from models.status import Ending, Step


async def dropped(step: Step, event: Event, services: Services) -> list[Message]:
    """Drop the event: its upload was refused, its picture deleted, or it is forged.

    The picture's row, if there is one, is told.

    Raises
    ------
    StorageUnavailable
        Storage does not work, so what it does not have may be there: a missing bucket and a
        wrong key look like a missing object.
    """
    await services.storage.ping()
    DROPPED.labels(step.value).inc()
    # An event that names another time than the picture's is not of the picture.
    image_id = event.image_id or ""
    if await services.storage.get_metadata(tenant=event.tenantId, image_id=image_id) is not None:
        return []
    return [ending(event, Ending.DROPPED)]


async def is_stored(image: StoredImage, services: Services) -> bool:
    """Tell whether a picture is there still: what was written behind its end is taken back."""
    found = await services.storage.get_metadata(
        tenant=image.tenantId, image_id=image.imageId, uploaded_at=image.uploadedAt
    )
    return found is not None
