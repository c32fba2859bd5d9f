"""A search's conditions and a point's payload, in the form that every engine can match."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from deeplens_streams.errors import BadRequest
from deeplens_streams.vectors.base import Hit, SearchFilter, point_id

TAG_PAIRS = "_tagPairs"
"""Where a point's tags are kept a second time, each as one text: a client's tag may be called
anything, and dots, brackets and quotes mean something in a payload path."""

KEYWORD_FIELDS = ("fileName", "contentType", "uploadedBy", TAG_PAIRS)
"""Payload fields that conditions compare as a whole."""
TIME_FIELD = "uploadedAt"

_TAGS = "tags."
_PLAIN_FIELDS = ("fileName", "contentType", "uploadedBy")


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions that all must hold.

    Attributes
    ----------
    any_of : payload field and the texts of which it, or one of its items, must be equal to one.
    uploaded_from, uploaded_before : from is inclusive, before is not.
    excluded_point : a point's ID.
    """

    any_of: tuple[tuple[str, tuple[str, ...]], ...]
    uploaded_from: datetime | None
    uploaded_before: datetime | None
    excluded_point: str | None


def conditions(where: SearchFilter, *, model: str) -> Conditions:
    """Return `where` in terms of stored payloads.

    Raises
    ------
    BadRequest
        A field that cannot be filtered by, or a value that cannot be compared.
    """
    return Conditions(
        any_of=tuple(_any_of(field, values) for field, values in where.equals.items()),
        uploaded_from=_time(where.uploaded_from),
        uploaded_before=_time(where.uploaded_before),
        excluded_point=(
            point_id(image_id=where.exclude_image_id, model=model)
            if where.exclude_image_id
            else None
        ),
    )


def stored_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return `payload` with its tags in the form that conditions match."""
    tags: Mapping[str, str] = payload.get("tags") or {}
    return {**payload, TAG_PAIRS: [_pair(key, value) for key, value in tags.items()]}


def to_hit(payload: Mapping[str, Any], score: float) -> Hit:
    """Return a stored point as a result; rounding in an engine may leave -1 to 1 by a little."""
    shown = {key: value for key, value in payload.items() if key != TAG_PAIRS}
    return Hit(image_id=shown["imageId"], score=min(1.0, max(-1.0, score)), payload=shown)


def _any_of(field: str, values: Any) -> tuple[str, tuple[str, ...]]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise BadRequest(f"The filter {field} takes texts.")
    try:
        for text in (field, *values):
            text.encode()
    except UnicodeEncodeError:
        raise BadRequest("A filter holds half a character.") from None
    if field in _PLAIN_FIELDS:
        return field, tuple(values)
    if field.startswith(_TAGS) and field != _TAGS:
        key = field.removeprefix(_TAGS)
        return TAG_PAIRS, tuple(_pair(key, value) for value in values)
    raise BadRequest(f"{field!r} is no filter; use {', '.join(_PLAIN_FIELDS)} or tags.KEY.")


def _pair(key: str, value: str) -> str:
    """Return one text for a tag, a different one for each tag."""
    return orjson.dumps([key, value]).decode()


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"{text!r} is no ISO-8601 time.") from None
    if moment.tzinfo is None:
        raise BadRequest(f"{text!r} names no offset from UTC; end it in Z.")
    return moment.astimezone(UTC)
