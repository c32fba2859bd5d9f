"""What all keys are made of: times, days and UUIDs."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from deeplens_streams.identifiers import bare_uuid, check_image_id
from models.events import wire_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: How wide milliseconds are written.
MS_DIGITS = 13
#: Milliseconds since 1970 have fewer than this: until 2286.
MS_LIMIT = 10**MS_DIGITS
#: Expressions that match a day and a UUID.
DAY = r"\d{4}-\d{2}-\d{2}"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_DAY_MS, _MINUTE_MS = 86_400_000, 60_000
_DATED_NAME = re.compile(rf"(?P<ms>\d{{{MS_DIGITS}}})-(?P<uuid>{UUID})\.json", re.ASCII)


class InvalidObjectKey(ValueError):
    """A key that this tenant cannot have; it was not built here."""


@lru_cache
def epoch_ms(uploaded_at: str) -> int:
    """Return whole milliseconds since 1970 of an ISO-8601 time that names its offset.

    Raises
    ------
    ValueError
        The text is no such time, or lies before 1970 or after 2286.
    """
    at = datetime.fromisoformat(uploaded_at)
    if at.tzinfo is None:
        raise ValueError(f"{uploaded_at!r} names no offset from UTC")
    try:
        ms = (at - _EPOCH) // timedelta(milliseconds=1)
    except OverflowError:
        ms = -1
    if not 0 <= ms < MS_LIMIT:
        raise ValueError(f"{uploaded_at!r} cannot be when a picture was uploaded")
    return ms


def time_of(ms: int) -> str:
    """Return so many milliseconds since 1970 as times are written."""
    return wire_time(moment(ms))


def day_of(ms: int) -> str:
    """Return the day under which what was uploaded then lies."""
    return _day(ms // _DAY_MS)


@lru_cache
def _day(number: int) -> str:
    return f"{moment(number * _DAY_MS):%Y-%m-%d}"


@lru_cache
def _minute(number: int) -> str:
    return f"{moment(number * _MINUTE_MS):%Y-%m-%d/%H-%M}"


def moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def image_uuid(image_id: str) -> str:
    return bare_uuid(check_image_id(image_id))


def letter_uuid(letter_id: str) -> str:
    if not re.fullmatch(UUID, letter_id, re.ASCII):
        raise InvalidObjectKey(f"{letter_id[:80]!r} is no ID of a dead letter")
    return letter_id


def dated(ms: int, uuid: str) -> str:
    return f"{_minute(ms // _MINUTE_MS)}/{dated_name(ms, uuid)}"


def dated_name(ms: int, uuid: str) -> str:
    """Return the name that `read_dated_key` reads."""
    return f"{ms:0{MS_DIGITS}d}-{uuid}.json"


def read_dated_key(key: str) -> tuple[int, str] | None:
    """Return (epoch ms, UUID) that a dated key ends in, or None if it is no such key."""
    match = _DATED_NAME.fullmatch(key.rpartition("/")[2])
    return (int(match["ms"]), match["uuid"]) if match else None
