"""What the views are handed: collaborators, and the doors to the stream side of the process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from deeplens_streams.audit.settled import Watermark
from deeplens_streams.broker.topics import Publish
from deeplens_streams.circuit_breaker import BreakerState
from deeplens_streams.ingest import admission
from deeplens_streams.services import Services
from deeplens_streams.status.outages import Outages
from deeplens_streams.tenancy.quotas import Quotas
from deeplens_streams.tenancy.registry import Registry
from deeplens_streams.web.shares import Entry, Share, TablePage
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

    async def local_share(self, name: str, *, limit: int, after: str | None) -> Share:
        """Return what this worker holds; it never asks on."""

    def local_row(self, name: str, key: str) -> Entry | None:
        """Return the row if this worker holds it; see `RowSource`."""


class StatusFeed(Protocol):
    """Every change of every row, as each api process reads it.

    Attributes
    ----------
    outages : what pictures wait for, as the rows tell.
    """

    outages: Outages

    def subscribe(self, image_id: str) -> AbstractAsyncContextManager[asyncio.Queue[ImageRow]]:
        """Receive the changes of one image from now on."""

    def on_change(self, listener: Callable[[ImageRow], None]) -> None:
        """Call `listener` with every row that reached its end, and those that are watched."""


@dataclass(frozen=True, slots=True)
class Check:
    """One dependency's health; `detail` is a sentence for an operator.

    `breaker` is its circuit breaker's state: ``closed``, ``open`` or ``half-open``.
    """

    ok: bool
    detail: str = ""
    breaker: str = BreakerState.CLOSED.value


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthContext:
    """What a process without the api role is asked: whether it works.

    Attributes
    ----------
    services : the process's collaborators.
    stream_checks : health of broker and tables, by name (``broker``, ``tables``).
    """

    services: Services
    stream_checks: Callable[[], Awaitable[Mapping[str, Check]]]


class Backlog(admission.Backlog, Watermark, Protocol):
    """What stages have still to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebContext(HealthContext):
    """What all views work with, the health checks' included.

    Attributes
    ----------
    publish : sends events and returns when Kafka has them (acks=all); raises
        `BrokerUnavailable` after ``produce_timeout_s``.
    rows, feed : the status table and its changes.
    tables : all tables, for whoever inspects them.
    backlog : what waits to be processed.
    registry : every tenant.
    quotas : what tenants may do.
    """

    publish: Publish
    rows: RowSource
    feed: StatusFeed
    tables: TableSource
    backlog: Backlog
    registry: Registry
    quotas: Quotas
