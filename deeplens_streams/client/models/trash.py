"""Answers about what repairs took away."""

from typing import Annotated

from pydantic import Field

from deeplens_streams.client.models.base import Answer, Cursor, Reply, Time, one_of
from models.states import TrashKind


class TrashEntry(Answer):
    """Something that a repair took away; `key` is where it was."""

    trash_id: str
    kind: Annotated[str, one_of(*TrashKind)]
    key: Annotated[str, Field(description="Where it was; of a vector, its model.")]
    tenant_id: Annotated[str, Field(description="Empty for what is of nobody.")]
    image_id: str | None
    reason: str
    at: Time
    audit_id: str
    size: int
    sha256: str


class TrashPage(Reply):
    entries: list[TrashEntry]
    next_cursor: Cursor


class TrashAnswer(Reply):
    """A thing that was restored or removed for good."""

    entry: TrashEntry | None


class TrashRemoved(Reply):
    """How much one request removed of the trash, and whether there is `more`."""

    removed: int | None
    more: bool | None
    not_removed: int | None = None
