"""Events that ask for a picture's steps: as its way begins, and as a dead letter holds one."""

from dataclasses import dataclass

from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import STAGE_BY_NAME, STEP_STAGES
from deeplens_streams.errors import DeepLensError, NotRetryable
from models.deletion import Tombstone
from models.events import (
    Event,
    ImageUploaded,
    ImageUploadedData,
    derived_id,
)
from models.images import StoredImage
from models.letters import DeadLetter
from models.status import ImageRow, Step
from models.tenants import ChangeKind, TenantChange


@dataclass(frozen=True, slots=True)
class FailedStep:
    """A step of a picture that failed, and the event that asked for it."""

    step: Step
    event: Event

    @property
    def model(self) -> str | None:
        """The model that the step is of, if it is of one."""
        return getattr(self.event.data, "modelName", None)

    @property
    def message(self) -> Message:
        """The event on its way to the step's topic."""
        return Message(STEP_STAGES[self.step].topic, self.event)


def failed_step(letter: DeadLetter) -> FailedStep:
    """Return the step that failed and its event, as it was.

    Raises
    ------
    NotRetryable
        It was no step of a picture, or its event could never be read.
    """
    stage = STAGE_BY_NAME.get(letter.failedStep)
    if stage is None or stage.step is None or letter.originalEvent is None:
        raise NotRetryable("This was no step of a picture; it can be inspected and discarded.")
    try:
        event = codec.from_wire(stage.event, letter.originalEvent)
    except DeepLensError:
        raise NotRetryable(
            "This message could never be read, so it cannot be sent again; discard it."
        ) from None
    policy = getattr(event, "retryPolicy", None)
    if policy is not None:
        policy.currentAttempt = 0
    return FailedStep(stage.step, event)


def unread_message(letter: DeadLetter) -> Message:
    """Return an event that was of a newer version than whoever had it, on its way to its topic.

    Raises
    ------
    NotRetryable
        It is of a newer version than this worker, too; or a stranger's.
    """
    stage = STAGE_BY_NAME.get(letter.failedStep)
    if stage is None:
        raise NotRetryable(
            "This version has no such stage; retry it after an upgrade, or discard it."
        )
    try:
        event = codec.from_wire(stage.event, letter.originalEvent)
    except DeepLensError as error:
        raise NotRetryable(error.message) from None
    if isinstance(event, TenantChange):
        if event.data.kind not in set(ChangeKind):
            raise NotRetryable("This version does not know that change either; upgrade first.")
        # Where it fails once more, it is to be another letter.
        event.eventId = derived_id("again", letter.letterId)
    return Message(stage.topic, event)


def event_id(
    image: StoredImage | ImageRow | Tombstone, step: Step, model: str | None, generation: int
) -> str:
    """Return the ID of the event that asks for a step of an image."""
    if step is Step.IMAGE_PROCESSING and generation == 1:
        return image.correlationId
    parts = [STEP_STAGES[step].id_word, image.imageId, *([model] if model else []), generation]
    return derived_id(*parts)


def uploaded_event(image: StoredImage) -> ImageUploaded:
    """Return the event with which a picture's way begins."""
    return ImageUploaded.new(
        image.tenantId,
        ImageUploadedData(
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
        eventId=image.correlationId,
        correlationId=image.correlationId,
        timestamp=image.uploadedAt,
        processingOptions=image.processingOptions,
    )
