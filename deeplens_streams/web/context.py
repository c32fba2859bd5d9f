"""What the views are handed: collaborators, and the doors to the stream side of the process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from deeplens_streams.audit.settled import Watermark
from deeplens_streams.broker.topics import Publish
from deeplens_streams.circuit_breaker import BreakerState
from deeplens_streams.ingest import admission
from deeplens_streams.interactive_queries.sources import RowSource, TableSource
from deeplens_streams.pipeline.retry import Replay
from deeplens_streams.services import Services
from deeplens_streams.status.outages import Outages
from deeplens_streams.tenancy.quotas import Quotas
from deeplens_streams.tenancy.registry import Registry
from models.status import ImageRow


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

    @property
    def replay(self) -> Replay:
        """Return what brings dead letters back into the pipeline."""
        return Replay(self.services, self.rows, self.publish)
