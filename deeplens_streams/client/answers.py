"""What the system answers, as typed values; each keeps the whole object as it came in `raw`."""

import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from deeplens_streams.client.errors import NotReachable

Raw = Mapping[str, Any]
FINAL_STATES = frozenset({"completed", "partial", "failed", "deleted"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the system answered, as far as this version knows it.

    Attributes
    ----------
    raw : the object as it came, with the fields that this version does not know.
    """

    raw: Raw


T = TypeVar("T", bound=Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload(Answer):
    """An answered upload; `duplicate_of` is the image that has the same bytes, if there is one."""

    image_id: str
    status: str
    message: str
    upload_time_ms: float
    estimated_processing_time_seconds: float | None
    status_check_url: str
    web_socket_url: str
    duplicate_of: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Answer):
    step: str
    status: str
    #: Milliseconds.
    duration: float | None
    attempt: int
    model_name: str | None
    collection_name: str | None
    error_message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Answer):
    """Where a picture is on its way."""

    image_id: str
    tenant_id: str
    status: str
    processing_steps: list[Step]
    percent_complete: float
    estimated_time_remaining_seconds: float | None
    searchable_after: str | None
    uploaded_at: str
    last_updated: str
    error_code: str | None
    error_message: str | None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Answer):
    """What is known of a picture; `status` is None while nobody can tell."""

    image_id: str
    tenant_id: str
    file_name: str
    content_type: str
    file_size: int
    checksum_sha256: str
    uploaded_at: str
    uploaded_by: str | None
    tags: dict[str, str]
    status: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePage(Answer):
    images: list[Image]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit(Answer):
    """One search result; the score is the cosine, -1 to 1."""

    image_id: str
    similarity_score: float
    file_name: str | None
    thumbnail_url: str | None
    uploaded_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResults(Answer):
    message: str | None
    query_processing_time_ms: float
    result_count: int
    results: list[Hit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion(Answer):
    """How far a deletion is; nothing is left once `completed_at` is there."""

    message: str | None
    image_id: str
    tenant_id: str
    requested_at: str
    completed_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPurge(Answer):
    message: str | None
    tenant_id: str
    requested_at: str
    completed_at: str | None
    images_deleted: int | None
    images_left: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant(Answer):
    """What the registry has of a tenant; ``limits`` and ``usage`` as they go over the wire."""

    tenant_id: str
    state: str
    provisioned: bool
    created_at: str
    updated_at: str
    limits: dict[str, Any]
    usage: dict[str, Any]
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantStep(Answer):
    step: str
    status: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantAnswer(Answer):
    """`api_key` is there when a tenant is made, and never again."""

    message: str | None
    tenant: Tenant
    steps: list[TenantStep]
    api_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPage(Answer):
    tenants: list[Tenant]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantUsage(Answer):
    tenant_id: str
    images: int
    bytes: int
    limits: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Answer):
    key_id: str
    name: str
    scopes: list[str]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys(Answer):
    tenant_id: str | None
    keys: list[Key]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAnswer(Answer):
    """`api_key` is there when a key is made, and never again."""

    message: str
    key: Key
    api_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionMade(Answer):
    message: str
    collection_name: str
    vector_count: int
    already_existed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Answer):
    image_id: str
    generation: int
    retried: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter(Answer):
    """What could not be processed; its trace and its event are in `raw`, one letter at a time."""

    letter_id: str
    tenant_id: str
    image_id: str | None
    failed_step: str
    error_code: str
    error_message: str
    failed_at: str
    can_retry: bool
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterPage(Answer):
    dead_letters: list[DeadLetter]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashEntry(Answer):
    """Something that a repair took away; `key` is where it was."""

    trash_id: str
    kind: str
    key: str
    tenant_id: str
    image_id: str | None
    reason: str
    at: str
    audit_id: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashPage(Answer):
    entries: list[TrashEntry]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class EmptiedTrash:
    """How many things are gone, and how many stay, because storage refuses; `why` names one."""

    removed: int
    not_removed: int
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped(Answer):
    letter_id: str
    error_code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LettersChanged(Answer):
    done: list[str]
    skipped: list[Skipped]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Answer):
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness(Answer):
    success: bool
    message: str
    checks: dict[str, Check]
    warning: str | None


def parse(kind: type[T], raw: Any) -> T:
    """Read an answer's object.

    Raises
    ------
    NotReachable
        It is no such object: what answers is not DeepLens, or of another time.
    """
    try:
        values = {name: _value(hint, raw[wire]) for name, wire, hint in _fields(cast(Any, kind))}
        return kind(raw=raw, **values)
    except (KeyError, TypeError) as error:
        raise NotReachable(
            f"The answer is not one of DeepLens ({type(error).__name__}: {error}); check the URL."
        ) from None


@cache
def _fields(kind: type[Answer]) -> list[tuple[str, str, Any]]:
    hints = get_type_hints(kind)
    return [
        (each.name, _wire_name(each.name), hints[each.name])
        for each in fields(kind)
        if each.name != "raw"
    ]


def _wire_name(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


def _value(hint: Any, value: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(each for each in arguments if each is not type(None))
        return None if value is None else _value(inner, value)
    if origin is list:
        return [_value(arguments[0], each) for each in value]
    if origin is dict:
        return {key: _value(arguments[1], each) for key, each in value.items()}
    if isinstance(hint, type) and issubclass(hint, Answer):
        return parse(hint, value)
    return value
