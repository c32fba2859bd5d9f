"""Dead letters back into the pipeline: at the step that failed, as the image's next generation."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import NoReturn, Protocol

from deeplens_streams import codec
from deeplens_streams.errors import (
    AlreadyResolved,
    BadRequest,
    DeepLensError,
    ImageNotFound,
    NewerVersion,
    NotRetryable,
    RetryUnderWay,
)
from deeplens_streams.letters import letter_id
from deeplens_streams.reports import progress, report
from deeplens_streams.services import Services
from deeplens_streams.storage.letters import is_claimed
from deeplens_streams.storage.objects import DamagedMetadata
from deeplens_streams.topics import (
    COMPLETED,
    DELETED,
    EXTRACTION,
    FAILED,
    INDEXING,
    PROGRESS,
    TENANT_CHANGES,
    UPLOADED,
    Message,
    Publish,
    Topic,
)
from models.deletion import ImageDeleted, Tombstone
from models.events import (
    Event,
    FeatureExtractionRequested,
    ImageUploaded,
    ImageUploadedData,
    ProcessingCompleted,
    ProcessingFailed,
    VectorIndexingRequested,
    derived_id,
    utc_now,
)
from models.images import StoredImage
from models.letters import DeadLetter, LetterState
from models.status import ImageProgress, ImageRow, Step, StepReport, StepStatus
from models.tenants import ChangeKind, TenantChange

#: For how long a letter is left alone that somebody began to retry, who may have been killed since.
CLAIM_S = 30.0

#: The pipeline's steps: what their topics carry, and the first word of their events' IDs.
_STEPS: dict[str, tuple[Topic, type[Event], str]] = {
    Step.IMAGE_PROCESSING: (UPLOADED, ImageUploaded, "upload"),
    Step.FEATURE_EXTRACTION: (EXTRACTION, FeatureExtractionRequested, "extract"),
    Step.VECTOR_INDEXING: (INDEXING, VectorIndexingRequested, "index"),
}

#: The other stages, whose events of newer versions are sent again as they were.
_OTHERS: dict[str, tuple[Topic, type[Event]]] = {
    "purging": (DELETED, ImageDeleted),
    "status_tracking": (PROGRESS, ImageProgress),
    "tenants": (TENANT_CHANGES, TenantChange),
    "notifications": (COMPLETED, ProcessingCompleted),
    "dead_letters": (FAILED, ProcessingFailed),
}


class Rows(Protocol):
    """What is used of the status table, as seen from any worker."""

    async def row(self, image_id: str) -> ImageRow | None: ...


class Replay:
    """Retries and discards dead letters; every write may be repeated.

    Parameters
    ----------
    claim_s : how long a letter that somebody began to retry is left alone.
    """

    def __init__(
        self, services: Services, rows: Rows, publish: Publish, *, claim_s: float | None = None
    ) -> None:
        self._storage, self._letters = services.storage, services.letters
        self._rows, self._publish = rows, publish
        self._claim_s = CLAIM_S if claim_s is None else claim_s

    async def retry(self, letter: DeadLetter, *, force: bool = False) -> int:
        """Send a letter's event again and return the generation that it opens.

        Parameters
        ----------
        force : also where the same event is not expected to succeed.

        Raises
        ------
        AlreadyResolved
            It was retried or discarded, or its image has moved on without it.
        RetryUnderWay
            Somebody else, perhaps in another worker, has begun and is not done.
        NotRetryable
            Its event cannot be sent again, or would fail again.
        ImageNotFound
            Its image is gone.
        """
        _require_waiting(letter)
        if not letter.canRetry and not force:
            raise NotRetryable
        if letter.errorCode == NewerVersion.code:
            send = partial(self._send_as_it_was, letter, *_unread_event_of(letter))
        else:
            send = partial(self._send, letter, *_event_of(letter))
        # 1. The claim: of many who retry it, one goes on. If that one is killed, the next goes
        # on where it was, as the same generation.
        if not await self._letters.claim(letter, seconds=self._claim_s):
            await self._refuse(letter)
        try:
            return await send()
        except (Exception, asyncio.CancelledError):
            if letter.state == LetterState.WAITING:  # nothing was decided, so nobody need wait
                with suppress(Exception):
                    await self._letters.release(letter)
            raise

    async def _send(self, letter: DeadLetter, step: Step, event: Event) -> int:
        image_id = event.image_id or ""
        image = await self._storage.get_metadata(tenant=letter.tenantId, image_id=image_id)
        if image is None:
            await self._resolve(letter, LetterState.SUPERSEDED, "the image is gone")
            raise ImageNotFound
        row = await self._rows.row(image_id)
        model = getattr(event.data, "modelName", None)
        later = _generation(row, step, model) if row is not None else 0
        if later > letter.generation:
            # Whoever retried it died before writing that down.
            letter.retriedAs = later
            await self._resolve(letter, LetterState.RETRIED, None)
            raise AlreadyResolved(f"This dead letter was retried, as generation {later}.")
        if row is not None and not _has_failed(row, step, model):
            await self._resolve(letter, LetterState.SUPERSEDED, "the image has moved on")
            raise AlreadyResolved("This image has moved on since; there is nothing to retry.")
        event.generation = max(letter.generation, row.generation if row else 0) + 1
        event.eventId = event_id(image, step, model, event.generation)
        event.timestamp = utc_now()
        begun = report(step, StepStatus.PENDING, model=model)
        # 2. The event.
        await self._publish(Message(_STEPS[step][0], event))
        # 3. That it is under way again: said sooner, a try that failed could not be repeated.
        await self._publish(progress(event, [begun], image))
        # 4. The letter. Without this, a later retry opens one more generation: the same work
        # again, and the same end.
        letter.retriedAs = event.generation
        await self._resolve(letter, LetterState.RETRIED, None)
        return event.generation

    async def _send_as_it_was(self, letter: DeadLetter, topic: Topic, event: Event) -> int:
        """Send an event again that an older version could not read."""
        await self._publish(Message(topic, event))
        letter.retriedAs = event.generation
        await self._resolve(letter, LetterState.RETRIED, None)
        return event.generation

    async def discard(self, letter: DeadLetter, reason: str) -> None:
        """Decide that a letter is not to be retried.

        Raises
        ------
        AlreadyResolved
            It was retried or discarded, perhaps at the same time.
        RetryUnderWay
            Somebody is just retrying it.
        """
        _require_waiting(letter)
        if is_claimed(letter, seconds=self._claim_s):
            raise RetryUnderWay
        await self._resolve(letter, LetterState.DISCARDED, reason)

    async def _resolve(self, letter: DeadLetter, state: LetterState, reason: str | None) -> None:
        letter.state, letter.reason, letter.resolvedAt = state.value, reason, utc_now()
        if not await self._letters.resolve(letter):
            # The same retry may be noted already: by whoever keeps the letter that it ended in.
            now = await self._letters.find(letter.letterId)
            if now is None or (now.state, now.retriedAs) != (
                LetterState.RETRIED,
                letter.retriedAs,
            ):
                await self._refuse(letter)

    async def _refuse(self, letter: DeadLetter) -> NoReturn:
        """Say that somebody else was faster."""
        now = await self._letters.find(letter.letterId)
        if now is None:
            raise AlreadyResolved
        _require_waiting(now)
        raise RetryUnderWay


async def note_retried(letter: DeadLetter, services: Services) -> None:
    """Resolve the letter before this one, which came of its retry, if it waits still.

    Whoever retried it died before writing that down.
    """
    if letter.generation <= 1:
        return
    try:
        step, event = _event_of(letter)
        image = await services.storage.get_metadata(
            tenant=letter.tenantId, image_id=event.image_id or ""
        )
    except (NotRetryable, DamagedMetadata, BadRequest):
        return  # a stranger's, or of an image that an audit tells of
    if image is None:
        return
    model = getattr(event.data, "modelName", None)
    asked = event_id(image, step, model, letter.generation - 1)
    before = await services.letters.find(letter_id(letter.tenantId, step, asked))
    if before is not None and before.state == LetterState.WAITING:
        before.state, before.retriedAs = LetterState.RETRIED.value, letter.generation
        before.resolvedAt = utc_now()
        await services.letters.resolve(before)


def event_id(
    image: StoredImage | ImageRow | Tombstone, step: Step, model: str | None, generation: int
) -> str:
    """Return the ID of the event that asks for a step of an image."""
    if step is Step.IMAGE_PROCESSING and generation == 1:
        return image.correlationId
    parts = [_STEPS[step][2], image.imageId, *([model] if model else []), generation]
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


def _require_waiting(letter: DeadLetter) -> None:
    if letter.state != LetterState.WAITING:
        raise AlreadyResolved(f"This dead letter was {letter.state} at {letter.resolvedAt}.")


def _event_of(letter: DeadLetter) -> tuple[Step, Event]:
    """Return the step that failed and its event, as it was."""
    if letter.failedStep not in _STEPS or letter.originalEvent is None:
        raise NotRetryable("This was no step of a picture; it can be inspected and discarded.")
    step = Step(letter.failedStep)
    try:
        event = codec.from_wire(_STEPS[step][1], letter.originalEvent)
    except DeepLensError:
        raise NotRetryable(
            "This message could never be read, so it cannot be sent again; discard it."
        ) from None
    policy = getattr(event, "retryPolicy", None)
    if policy is not None:
        policy.currentAttempt = 0
    return step, event


def _unread_event_of(letter: DeadLetter) -> tuple[Topic, Event]:
    """Return an event that was of a newer version than whoever had it, and its topic.

    Raises
    ------
    NotRetryable
        It is of a newer version than this worker, too; or a stranger's.
    """
    topics = {step: (topic, record) for step, (topic, record, _) in _STEPS.items()} | _OTHERS
    if letter.failedStep not in topics:
        raise NotRetryable(
            "This version has no such stage; retry it after an upgrade, or discard it."
        )
    topic, record = topics[letter.failedStep]
    try:
        event = codec.from_wire(record, letter.originalEvent)
    except DeepLensError as error:
        raise NotRetryable(error.message) from None
    if isinstance(event, TenantChange):
        if event.data.kind not in set(ChangeKind):
            raise NotRetryable("This version does not know that change either; upgrade first.")
        # Where it fails once more, it is to be another letter.
        event.eventId = derived_id("again", letter.letterId)
    return topic, event


def _generation(row: ImageRow, step: Step, model: str | None) -> int:
    """Return the last generation in which anything was said of a step; 0 if nothing was."""
    return max((each.generation for each in _reports(row, step, model)), default=0)


def _has_failed(row: ImageRow, step: Step, model: str | None) -> bool:
    return any(each.status == StepStatus.FAILED for each in _reports(row, step, model))


def _reports(row: ImageRow, step: Step, model: str | None) -> list[StepReport]:
    return [each for each in row.steps if (each.step, each.modelName) == (step.value, model)]
