"""Having an image processed anew, as its next generation."""

from deeplens_streams.broker.topics import Message, Publish
from deeplens_streams.broker.topology import UPLOADED
from deeplens_streams.pipeline.progress import ending, progress, report
from deeplens_streams.pipeline.requests import event_id, uploaded_event
from models.events import utc_now
from models.images import StoredImage
from models.status import Ending, ImageRow, Step, StepStatus


async def process_again(image: StoredImage, row: ImageRow | None, publish: Publish) -> None:
    """Send the image's first event again; without a row it is its first generation."""
    event = uploaded_event(image)
    if row is not None:
        event.generation = row.generation + 1
        event.eventId = event_id(image, Step.IMAGE_PROCESSING, None, event.generation)
        event.timestamp = utc_now()
    steps = [report(Step.IMAGE_PROCESSING, StepStatus.PENDING)]
    # In this order, as for a retry.
    await publish(Message(UPLOADED, event))
    await publish(progress(event, steps, image))


async def revive(image: StoredImage, row: ImageRow, publish: Publish) -> None:
    """Have an image processed whose row says that it was deleted, and nobody has deleted it.

    A row that says so is at its end: it goes, and the image gets another.
    """
    await publish(ending(row, Ending.PURGED))
    await process_again(image, None, publish)
