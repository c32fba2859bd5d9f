"""A search's conditions and a point's payload, in the form that every engine can match."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import orjson

from deeplens_streams.errors import BadRequest, InvalidImageId
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.imaging.preprocessing import version_of
from deeplens_streams.vectors.base import Hit, PointPage, SearchFilter
from deeplens_streams.vectors.collection_ref import TENANT_FIELD, CollectionRef
from deeplens_streams.vectors.scores import rounded

#: The payload field that says once more, each as one text, what a point can be filtered by. One
#: index serves every filter, and a tag may be called anything: in a payload's paths dots, brackets
#: and quotes would mean something.
TERMS = "_terms"

TIME_FIELD = "uploadedAt"

#: The payload field that hardly two points have in common. An index of it takes 300 bytes a point,
#: so the terms say only which of `_BUCKETS` a name falls into, and the field itself decides.
FILE_NAME = "fileName"

#: The payload field that says which version of the preprocessing made a point.
VERSION_FIELD = "preprocessingVersion"

_BUCKETS = 1024

_OURS = frozenset({TERMS, TENANT_FIELD})

_FIELDS = (FILE_NAME, "contentType", "uploadedBy")
_TAGS = "tags"


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions that all must hold.

    Attributes
    ----------
    tenant : whose points; None where a collection has one tenant.
    points : IDs of which a point must have one; None for any.
    any_of : groups of terms; of each group a point must have one.
    file_names : of which a point must have one; a group of terms says where to look.
    uploaded_from, uploaded_before : from is inclusive, before is not.
    excluded_point : a point's ID.
    """

    tenant: str | None
    points: tuple[str, ...] | None = None
    any_of: tuple[tuple[str, ...], ...] = ()
    file_names: tuple[str, ...] | None = None
    uploaded_from: datetime | None = None
    uploaded_before: datetime | None = None
    excluded_point: str | None = None


def all_points(place: CollectionRef) -> Conditions:
    """Return what every point of the place fulfils, and no other."""
    return Conditions(tenant=place.owner)


def points_of(place: CollectionRef, image_ids: Sequence[str]) -> Conditions:
    """Return what the points of these images fulfil, and no other."""
    ids = tuple(place.point_id(each) for each in image_ids)
    return Conditions(tenant=place.owner, points=ids)


def conditions(where: SearchFilter, place: CollectionRef) -> Conditions:
    """Return `where` in terms of stored payloads.

    Raises
    ------
    BadRequest
        A field that cannot be filtered by, or a value that cannot be compared.
    """
    any_of = tuple(_any_of(field, values) for field, values in where.equals.items())
    names = where.equals.get(FILE_NAME)
    return Conditions(
        tenant=place.owner,
        any_of=any_of,
        file_names=None if names is None else tuple(names),
        uploaded_from=_time(where.uploaded_from),
        uploaded_before=_time(where.uploaded_before),
        excluded_point=(place.point_id(where.exclude_image_id) if where.exclude_image_id else None),
    )


def stored_payload(payload: Mapping[str, Any], place: CollectionRef) -> dict[str, Any]:
    """Return `payload` with what conditions match: its terms, and its owner."""
    terms = [_term(field, payload[field]) for field in _FIELDS if payload.get(field) is not None]
    tags: Mapping[str, str] = payload.get(_TAGS) or {}
    terms += [_term(_TAGS, key, value) for key, value in tags.items()]
    return place.owned({**payload, TERMS: terms})


def to_hit(payload: Mapping[str, Any], score: float) -> Hit:
    """Return a stored point as a result, with the score that is shown."""
    shown = shown_payload(payload)
    return Hit(image_id=shown["imageId"], score=rounded(score), payload=shown)


def shown_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored payload without what is of this module's making."""
    return {key: value for key, value in payload.items() if key not in _OURS}


def to_page(points: Sequence[tuple[str, Mapping[str, Any]]], after: str | None) -> PointPage:
    """Return points, each its ID and its payload, as a page; a payload may hold anything."""
    images, damaged = list[tuple[str, str]](), list[str]()
    for point_id, payload in points:
        try:
            image_id, at = check_image_id(payload.get("imageId")), payload.get(TIME_FIELD)
        except InvalidImageId:
            damaged.append(point_id)
            continue
        images.append((image_id, at if isinstance(at, str) else ""))
    return PointPage(images, after, tuple(damaged))


def versions(payloads: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return of the images that payloads name by which preprocessing they were made."""
    return {
        each["imageId"]: version_of(each.get(VERSION_FIELD))
        for each in payloads
        if isinstance(each.get("imageId"), str)
    }


def _any_of(field: str, values: Any) -> tuple[str, ...]:
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    if not listed or not all(isinstance(value, str) for value in values):
        raise BadRequest(f"The filter {field} takes texts.")
    name, _, key = field.partition(".")
    if field in _FIELDS:
        path = [field]
    elif name == _TAGS and key:
        path = [name, key]
    else:
        raise BadRequest(f"{field!r} is no filter; use {', '.join(_FIELDS)} or tags.KEY.")
    try:
        return tuple(_term(*path, value) for value in values)
    except orjson.JSONEncodeError:
        raise BadRequest("A filter holds half a character.") from None


def _term(*parts: str) -> str:
    """Return one text for a field or a tag and its value: 88 bits, a different one for each.

    A file's name has one of `_BUCKETS` texts. An index in memory holds up to 15 characters in
    place; of what is longer, it has a piece of memory for each point.
    """
    if parts[0] == FILE_NAME:
        return f"{int.from_bytes(_digest(parts)) % _BUCKETS:03x}"
    return b64encode(_digest(parts))[:15].decode()


def _digest(parts: Sequence[str]) -> bytes:
    return blake2b(orjson.dumps(parts), digest_size=11).digest()


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
