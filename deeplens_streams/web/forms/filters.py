"""The ``filters`` of a search: a JSON object of a stranger's, into conditions."""

from typing import Any, Final

import orjson

from deeplens_streams.errors import BadRequest
from deeplens_streams.timestamps import parse_time
from deeplens_streams.vectors.base import SearchFilter
from deeplens_streams.web.forms.fields import TAG_KEY
from models.events import wire_time

_TEXT_FIELDS: Final = frozenset({"fileName", "contentType", "uploadedBy"})
_TAG_PREFIX: Final = "tags."
_TIME_FIELD: Final = "uploadedAt"
_TIME_BOUNDS: Final = frozenset({"gte", "lt"})

#: Fields of one filter and values of one field, at the most.
MAX_CONDITIONS: Final = 16
MAX_VALUES: Final = 64
MAX_VALUE_LENGTH: Final = 512


def parse_filters(text: str | None, *, exclude_image_id: str | None = None) -> SearchFilter:
    """Read the field's JSON.

    Raises
    ------
    BadRequest
        It is no such object; the message names the field at fault.
    """
    conditions = _object(text)
    times = _times(conditions.pop(_TIME_FIELD, None))
    return SearchFilter(
        equals={name: _values(name, value) for name, value in conditions.items()},
        uploaded_from=times.get("gte"),
        uploaded_before=times.get("lt"),
        exclude_image_id=exclude_image_id,
    )


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise BadRequest(
            'The field \'filters\' is a JSON object, such as {"contentType": "image/png"}.'
        )
    if len(found) > MAX_CONDITIONS:
        raise BadRequest(f"The field 'filters' names up to {MAX_CONDITIONS} fields.")
    return found


def _values(name: str, value: Any) -> list[str]:
    is_tag = name.startswith(_TAG_PREFIX) and TAG_KEY.fullmatch(name[len(_TAG_PREFIX) :])
    if name not in _TEXT_FIELDS and not is_tag:
        raise BadRequest(
            f"There is no filter {name[:60]!r}; "
            "use fileName, contentType, uploadedBy, tags.KEY or uploadedAt."
        )
    values = value if isinstance(value, list) else [value]
    if not 0 < len(values) <= MAX_VALUES or not all(
        isinstance(each, str) and len(each) <= MAX_VALUE_LENGTH for each in values
    ):
        raise BadRequest(f"The filter {name!r} is a text or a list of 1 to {MAX_VALUES} texts.")
    return values


def _times(value: Any) -> dict[str, str]:
    """Return the bounds in the form of ``uploadedAt``, so that they compare as texts, too."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not value or not value.keys() <= _TIME_BOUNDS:
        raise BadRequest("The filter 'uploadedAt' is an object of gte, lt or both.")
    return {bound: _utc(time) for bound, time in value.items()}


def _utc(value: Any) -> str:
    when = parse_time(value) if isinstance(value, str) else None
    if when is None:
        raise BadRequest("A time in the filter 'uploadedAt' is ISO-8601: 2026-01-31T12:00:00Z.")
    return wire_time(when)
