"""Answers about what could not be processed."""

from typing import Any

from deeplens_streams.client.models.base import Answer, Cursor, LetterId, Reply


class DeadLetterSummary(Answer):
    """One event that could not be brought to its end, without what may be large."""

    letter_id: str
    tenant_id: str
    failed_step: str
    error_code: str
    error_message: str
    failed_at: str
    image_id: str | None
    generation: int = 1
    attempts: int = 0
    can_retry: bool
    correlation_id: str = ""
    state: str
    resolved_at: str | None = None
    reason: str | None = None
    retried_as: int | None = None
    retry_begun_at: str | None = None


class DeadLetter(DeadLetterSummary):
    """One event that could not be brought to its end."""

    stack_trace: str | None = None
    original_event: dict[str, Any] | None = None


class LetterPage(Reply):
    dead_letters: list[DeadLetterSummary]
    next_cursor: Cursor


class WholeLetter(Reply):
    dead_letter: DeadLetter


class ChangedLetter(Reply):
    dead_letter: DeadLetterSummary


class SkippedLetter(Answer):
    letter_id: LetterId
    error_code: str
    message: str


class LettersChanged(Reply):
    done: list[LetterId]
    skipped: list[SkippedLetter]
    next_cursor: Cursor
