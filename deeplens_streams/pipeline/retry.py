"""Dead letters back into the pipeline: at the step that failed, as the image's next generation."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import NoReturn, Protocol

from deeplens_streams.broker.topics import Message, Publish
from deeplens_streams.errors import (
    AlreadyResolved,
    BadRequest,
    ImageNotFound,
    NewerVersion,
    NotRetryable,
    RetryUnderWay,
)
from deeplens_streams.pipeline.dead_letters import letter_id
from deeplens_streams.pipeline.progress import progress, report
from deeplens_streams.pipeline.requests import FailedStep, event_id, failed_step, unread_message
from deeplens_streams.services import Services
from deeplens_streams.storage.dead_letters import is_claimed
from deeplens_streams.storage.image_objects import DamagedMetadata
from models.events import utc_now
from models.letters import DeadLetter, LetterState
from models.status import ImageRow, Step, StepReport, StepStatus

#: For how long a letter is left alone that somebody began to retry, who may have been killed since.
CLAIM_S = 30.0


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
            send = partial(self._send_as_it_was, letter, unread_message(letter))
        else:
            send = partial(self._send, letter, failed_step(letter))
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

    async def _send(self, letter: DeadLetter, failed: FailedStep) -> int:
        step, event, model = failed.step, failed.event, failed.model
        image_id = event.image_id or ""
        image = await self._storage.get_metadata(tenant=letter.tenantId, image_id=image_id)
        if image is None:
            await self._resolve(letter, LetterState.SUPERSEDED, "the image is gone")
            raise ImageNotFound
        row = await self._rows.row(image_id)
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
        await self._publish(failed.message)
        # 3. That it is under way again: said sooner, a try that failed could not be repeated.
        await self._publish(progress(event, [begun], image))
        # 4. The letter. Without this, a later retry opens one more generation: the same work
        # again, and the same end.
        letter.retriedAs = event.generation
        await self._resolve(letter, LetterState.RETRIED, None)
        return event.generation

    async def _send_as_it_was(self, letter: DeadLetter, message: Message) -> int:
        """Send an event again that an older version could not read."""
        await self._publish(message)
        letter.retriedAs = message.event.generation
        await self._resolve(letter, LetterState.RETRIED, None)
        return message.event.generation

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
        failed = failed_step(letter)
        image = await services.storage.get_metadata(
            tenant=letter.tenantId, image_id=failed.event.image_id or ""
        )
    except (NotRetryable, DamagedMetadata, BadRequest):
        return  # a stranger's, or of an image that an audit tells of
    if image is None:
        return
    asked = event_id(image, failed.step, failed.model, letter.generation - 1)
    before = await services.letters.find(letter_id(letter.tenantId, failed.step, asked))
    if before is not None and before.state == LetterState.WAITING:
        before.state, before.retriedAs = LetterState.RETRIED.value, letter.generation
        before.resolvedAt = utc_now()
        await services.letters.resolve(before)


def _require_waiting(letter: DeadLetter) -> None:
    if letter.state != LetterState.WAITING:
        raise AlreadyResolved(f"This dead letter was {letter.state} at {letter.resolvedAt}.")


def _generation(row: ImageRow, step: Step, model: str | None) -> int:
    """Return the last generation in which anything was said of a step; 0 if nothing was."""
    return max((each.generation for each in _reports(row, step, model)), default=0)


def _has_failed(row: ImageRow, step: Step, model: str | None) -> bool:
    return any(each.status == StepStatus.FAILED for each in _reports(row, step, model))


def _reports(row: ImageRow, step: Step, model: str | None) -> list[StepReport]:
    return [each for each in row.steps if (each.step, each.modelName) == (step.value, model)]
