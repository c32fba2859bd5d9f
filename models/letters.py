"""A dead letter as it is kept: what failed, why, and what became of it."""

from enum import StrEnum
from typing import Any

from models.records import StoredRecord


class LetterState(StrEnum):
    WAITING = "waiting"
    """Nobody has decided yet."""
    RETRIED = "retried"
    """Its event was sent again, as the next generation of its image."""
    DISCARDED = "discarded"
    """A person decided that it is not to be retried, and said why."""
    SUPERSEDED = "superseded"
    """Its image has moved on without it, or is gone."""


class DeadLetter(StoredRecord, include_metadata=False):
    """One event that could not be brought to its end."""

    letterId: str
    #: Empty where the message could not be read far enough to say whose it was.
    tenantId: str
    failedStep: str
    errorCode: str
    errorMessage: str
    #: ISO-8601 UTC.
    failedAt: str
    imageId: str | None = None
    #: Of the image, when its event failed.
    generation: int = 1
    #: Made before it was given up.
    attempts: int = 0
    #: Whether the same event may succeed later.
    canRetry: bool = False
    correlationId: str = ""
    state: str = LetterState.WAITING.value
    #: When and why it left ``waiting``, and as which generation it was retried.
    resolvedAt: str | None = None
    reason: str | None = None
    retriedAs: int | None = None
    #: When somebody began to retry it, while that is not done.
    retryBegunAt: str | None = None
    stackTrace: str | None = None
    #: The whole event as it was, or the raw bytes of a message that could not be read.
    originalEvent: dict[str, Any] | None = None
