"""The tables as seen from any worker: what whoever asks for rows is handed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deeplens_streams.interactive_queries.shard import Entry, TablePage, TableShard
from models.status import ImageRow


class RowSource(Protocol):
    """The status table as seen from any worker."""

    async def row(self, image_id: str) -> ImageRow | None:
        """Return the row from the worker that owns it, or None if there is none.

        Raises
        ------
        RowMoving
            The partition is changing hands or recovered, or its owner does not answer, within a
            second.
        """

    async def rows(self, image_ids: Sequence[str]) -> dict[str, ImageRow]:
        """Return the rows that there are, one request to each owner."""

    def local_row(self, image_id: str) -> ImageRow | None:
        """Return the row if this worker holds it.

        Raises
        ------
        RowMoving
            Its partition is not this worker's, or is not recovered yet.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    """A table that there is; `changelog` is the topic that it is recovered from."""

    name: str
    purpose: str
    partitions: int
    changelog: str
    value_type: str


class TableSource(Protocol):
    """Every table, to be looked into from any worker. A name is of a table that is known."""

    def known(self) -> list[TableInfo]:
        """Return which there are."""

    async def page(self, name: str, *, limit: int, after: str | None) -> TablePage:
        """Return rows of every worker in key order, and what each has of the table."""

    async def row(self, name: str, key: str) -> Entry | None:
        """Return the row from the worker that owns its partition, or None if there is none.

        Raises
        ------
        RowMoving
            The partition is changing hands or its owner does not answer.
        """

    async def local_share(self, name: str, *, limit: int, after: str | None) -> TableShard:
        """Return what this worker holds; it never asks on."""

    def local_row(self, name: str, key: str) -> Entry | None:
        """Return the row if this worker holds it; see `RowSource`."""
