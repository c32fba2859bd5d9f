"""Dead letters: what a stage writes of an event that it could not bring to its end."""

import base64
import traceback
from typing import Any, Protocol

import orjson
import structlog

from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import FAILED, STAGE_BY_NAME
from deeplens_streams.errors import (
    BadRequest,
    DeepLensError,
    MalformedEvent,
    NewerVersion,
    every_error,
)
from deeplens_streams.identifiers import check_image_id, check_tenant_id
from deeplens_streams.metrics import DEAD_LETTERS, DEAD_LETTERS_READ, known_or_other
from models.events import Event, ProcessingFailed, ProcessingFailedData, derived_id

log = structlog.get_logger()

#: Bytes of an unreadable message, and of its key, that its dead letter keeps; base64 must fit
#: the topic's limit. Our keys are image IDs.
RAW_BYTES, KEY_BYTES = 4_194_304, 1024
#: Characters of a stack trace that are kept.
TRACE_CHARS = 20_000


class Incoming(Protocol):
    """What is used of a Faust event: the raw message."""

    key: Any
    value: Any
    headers: Any
    message: Any

    def ack(self) -> Any: ...


def known_error(error: Exception) -> DeepLensError:
    """Return `error` as one that a person may see."""
    if isinstance(error, DeepLensError):
        return error
    return DeepLensError(f"Unexpected {type(error).__name__}; see the stack trace.")


def letter_id(tenant: str, step: str, event_id: str) -> str:
    """Return under which ID the dead letter of an event that failed at a step is kept.

    It follows from all three, so a repeat is the same letter.
    """
    return kept_as(tenant, _failure_id(step, event_id))


def kept_as(tenant: str, failure_id: str) -> str:
    """Return the ID of the letter that a ``processing.failed`` with that ID becomes.

    It is that tenant's alone: what names another tenant becomes another letter, so a stranger's
    event never takes the place of somebody else's.
    """
    return derived_id("letter", tenant, failure_id)


def _failure_id(step: str, event_id: str) -> str:
    return derived_id("failed", step, event_id)


def dead_letter(
    step: str, event: Event, error: Exception, attempt: int, incoming: Incoming
) -> Message:
    """Return the dead letter of an event that was read."""
    known = known_error(error)
    DEAD_LETTERS.labels(step, known.code).inc()
    log.warning("dead letter", stage=step, code=known.code, reason=known.message)
    letter = ProcessingFailed.following(
        event,
        ProcessingFailedData(
            imageId=event.image_id,
            failedStep=step,
            errorCode=known.code,
            errorMessage=known.message,
            stackTrace=_trace(error),
            retryAttempt=attempt,
            # What nobody foresaw may have been chance.
            canRetry=known is not error or known.retryable or isinstance(known, NewerVersion),
            originalEvent=event.to_wire(),
        ),
        eventId=_failure_id(step, event.eventId or _origin(incoming)),
    )
    return Message(FAILED, letter)


def unreadable(step: str, incoming: Incoming, error: DeepLensError) -> Message:
    """Return the dead letter of a message that could not be read, with its raw bytes.

    An event of a newer version is kept whole: it can be retried after the upgrade.
    """
    DEAD_LETTERS.labels(step, error.code).inc()
    raw = incoming.message
    tenant, image_id = _owner(incoming)
    is_newer = isinstance(error, NewerVersion)
    log.warning(
        "unreadable message",
        stage=step,
        code=error.code,
        reason=error.message,
        topic=raw.topic,
        partition=raw.partition,
        offset=raw.offset,
    )
    letter = ProcessingFailed.new(
        tenant,
        ProcessingFailedData(
            imageId=image_id,
            failedStep=step,
            # A wrong ID in an event is no request's.
            errorCode=MalformedEvent.code if isinstance(error, BadRequest) else error.code,
            errorMessage=error.message,
            stackTrace=_trace(error),
            canRetry=is_newer,
            originalEvent=orjson.loads(incoming.value) if is_newer else _raw(incoming),
        ),
        eventId=_failure_id(step, _origin(incoming)),
        correlationId=codec.header_text(incoming.headers, "correlationId"),
    )
    return Message(FAILED, letter)


def count_read(step: str, code: str) -> None:
    """Count a dead letter that came from the topic."""
    codes = {each.code for each in every_error()}
    DEAD_LETTERS_READ.labels(known_or_other(step, STAGE_BY_NAME), known_or_other(code, codes)).inc()


def _raw(incoming: Incoming) -> dict[str, Any]:
    raw = incoming.message
    return {
        "topic": raw.topic,
        "partition": raw.partition,
        "offset": raw.offset,
        "keyBase64": _base64(incoming.key, KEY_BYTES),
        "valueBase64": _base64(incoming.value, RAW_BYTES),
        "valueBytes": len(incoming.value or b""),
    }


def _trace(error: Exception) -> str:
    """Return the stack trace with what caused it: the first cause stands first, the error last."""
    text = "".join(traceback.format_exception(error))
    if len(text) <= TRACE_CHARS:
        return text
    half = TRACE_CHARS // 2
    return f"{text[:half]}\n[...]\n{text[-half:]}"


def _origin(incoming: Incoming) -> str:
    """Name the message, the same at every redelivery."""
    raw = incoming.message
    return f"{raw.topic}/{raw.partition}/{raw.offset}"


def _base64(value: Any, limit: int) -> str | None:
    return base64.b64encode(value[:limit]).decode() if isinstance(value, bytes) else None


def _owner(incoming: Incoming) -> tuple[str, str | None]:
    """Return tenant and image of a message that is no event, as far as it tells."""
    tenant = codec.header_text(incoming.headers, "tenantId")
    image_id: str | None = None
    try:
        data = orjson.loads(incoming.value or b"")
        tenant = tenant or data.get("tenantId")
        image_id = check_image_id(data["data"]["imageId"])
    except (ValueError, TypeError, KeyError, AttributeError, DeepLensError):
        image_id = None
    try:
        return check_tenant_id(tenant), image_id
    except DeepLensError:
        return "", image_id
