"""Answers about the system itself: its health, and its tables."""

from typing import Annotated, Any, Literal

from pydantic import Field

from deeplens_streams.client.models.base import Answer, Reply, one_of, record
from models.tables import PartitionState


class HealthCheck(Answer):
    """Whether one part answers."""

    ok: bool
    detail: str
    breaker: Annotated[str, one_of("closed", "open", "half-open")] = "closed"


class HealthModel(Answer):
    """The model that a process works with."""

    name: str
    version: str
    dimension: int
    licence: str


class Readiness(Reply):
    """Whether every part that a process needs answers."""

    status: Annotated[str, one_of("ready", "unavailable")] = ""
    checks: dict[str, HealthCheck]
    model: HealthModel
    warning: str | None


class NotReady(Readiness):
    """The same of a process some part of which does not answer."""

    success: Literal[False]
    message: str
    error_code: Literal["NOT_READY"]


class Table(Answer):
    """One table of the streams."""

    name: str
    purpose: str
    partitions: int
    changelog: Annotated[str, Field(description="The topic that it is recovered from.")]
    value_type: str


class Tables(Reply):
    """Which tables there are."""

    tables: list[Table]
    worker: str


class TablePartition(Answer):
    """One worker's copy of one partition."""

    partition: int
    worker: Annotated[str, Field(description="Who has it.")] | None
    state: Annotated[str, one_of(*PartitionState)]
    rows: Annotated[int, Field(description="As RocksDB estimates it.")] | None
    size_bytes: int | None
    changelog_lag: (
        Annotated[int, Field(description="Messages of the changelog that it does not have yet.")]
        | None
    )


class TableEntry(Answer):
    """One row with its key."""

    key: str
    value: Any


class TablePage(Reply):
    """A table's partitions and some of its rows; `rows` are the values of `keys`."""

    table: str
    worker: str
    partitions: list[TablePartition]
    complete: bool
    keys: list[str]
    rows: list[Any]
    next_after: str | None


class TableRow(Reply):
    """One row, whichever worker holds it."""

    table: str
    key: str
    row: Any


class HeldRows(Reply):
    """The rows of those that were asked for, by image ID."""

    rows: dict[str, Annotated[dict[str, Any], record("ImageRow")]]


class HeldShare(Answer):
    """What a worker holds of a table."""

    partitions: list[TablePartition]
    entries: list[TableEntry]


class HeldShareAnswer(Reply):
    share: HeldShare


class HeldEntry(Reply):
    """A row of any table that a worker holds."""

    key: str
    value: Any
