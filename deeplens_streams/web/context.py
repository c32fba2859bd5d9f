"""What the views are handed: collaborators, and the doors to the stream side of the process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from deeplens_streams.services import Services
from models.events import ImageUploaded
from models.status import ImageRow


class RowSource(Protocol):
    """The status table as seen from any worker."""

    async def row(self, image_id: str) -> ImageRow | None:
        """Return the row from the worker that owns it, or None if there is none.

        Raises
        ------
        RowMoving
            The partition is changing hands or its owner does not answer within a second.
        """

    async def rows(self, image_ids: Sequence[str]) -> dict[str, ImageRow]:
        """Return the rows that there are, one request to each owner."""

    def local_row(self, image_id: str) -> ImageRow | None:
        """Return the row if this worker holds it."""

    def local_page(self, *, limit: int, after: str | None) -> tuple[list[ImageRow], str | None]:
        """Return some of this worker's rows in the table's order, and what continues them."""


class StatusFeed(Protocol):
    """Every change of every row, as each api process reads it."""

    def subscribe(self, image_id: str) -> AbstractAsyncContextManager[asyncio.Queue[ImageRow]]:
        """Receive the changes of one image from now on."""

    def on_change(self, listener: Callable[[ImageRow], None]) -> None:
        """Call `listener` with every row that reached its end, and those that are watched."""


@dataclass(frozen=True, slots=True)
class Check:
    """One dependency's health; `detail` is a sentence for an operator."""

    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class WebContext:
    """Attributes
    ----------
    services : the process's collaborators.
    publish_upload : sends the event and returns when Kafka has it (acks=all); raises
        `BrokerUnavailable` after ``produce_timeout_s``.
    rows, feed : the status table and its changes.
    stream_checks : health of broker and tables, by name (``broker``, ``tables``).
    """

    services: Services
    publish_upload: Callable[[ImageUploaded], Awaitable[None]]
    rows: RowSource
    feed: StatusFeed
    stream_checks: Callable[[], Awaitable[Mapping[str, Check]]]
