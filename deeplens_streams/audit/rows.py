"""The status table for who has time: what moves or recovers is waited for."""

import asyncio
import math
from collections.abc import AsyncGenerator
from typing import Any, Final

from deeplens_streams.audit.context import DamagedRow
from deeplens_streams.audit.report import PAGE
from deeplens_streams.errors import RowMoving
from deeplens_streams.identifiers import is_tenant_id
from deeplens_streams.interactive_queries.shard import TablePage
from deeplens_streams.interactive_queries.sources import RowSource, TableSource
from models.records import MalformedRecord
from models.status import ImageRow
from models.tables import PartitionState
from tables import image_status

#: Seconds in which something has to get better. A worker that dies without a word keeps its
#: partitions for ten of them.
PATIENCE_S = 60.0
_LOOK_S = 1.0
_READ: Final = (PartitionState.READY, PartitionState.STANDBY)


class RetryingRows:
    """Rows of all workers, as `RowSource` and `TableSource` have them.

    While a partition has no owner, or its owner recovers it, a question is asked again, from where
    it was. Whoever has a partition has its rows under the same keys, in the same order: behind the
    last key, none comes twice and none is left out.
    """

    def __init__(self, rows: RowSource, tables: TableSource) -> None:
        self._rows, self._tables = rows, tables

    async def rows(self, image_ids: list[str]) -> dict[str, ImageRow]:
        """Return the rows that there are.

        Raises
        ------
        RowMoving
            Some cannot be had, and for a minute nothing about that got better.
        """
        patience = _Patience()
        while True:
            try:
                return await self._rows.rows(image_ids)
            except RowMoving:
                await patience.wait(await self._tables.page(image_status.NAME, limit=1, after=None))

    async def pages(self) -> AsyncGenerator[list[ImageRow | DamagedRow]]:
        """Yield every row, in pages; what cannot be read is told from what can.

        Raises
        ------
        RowMoving
            As for `rows`.
        """
        after: str | None = None
        while True:
            page = await self._page(after)
            yield [_read(entry.key, entry.value) for entry in page.entries]
            after = page.next_after
            if after is None:
                return

    async def _page(self, after: str | None) -> TablePage:
        patience = _Patience()
        while True:
            page = await self._tables.page(image_status.NAME, limit=PAGE, after=after)
            if page.complete:
                return page
            await patience.wait(page)


def _read(key: str, value: Any) -> ImageRow | DamagedRow:
    try:
        return ImageRow.from_wire(value)
    except MalformedRecord as error:
        tenant = value.get("tenantId") if isinstance(value, dict) else None
        return DamagedRow(key, tenant if is_tenant_id(tenant) else "", str(error))


class _Patience:
    """Ends when nothing has got better for a while."""

    def __init__(self) -> None:
        self._least = (math.inf, math.inf)
        self._ends_at = 0.0

    async def wait(self, page: TablePage) -> None:
        """Wait a moment; `page` tells how much of the table is still to be had."""
        left, now = _left(page), asyncio.get_running_loop().time()
        if left < self._least:
            self._least, self._ends_at = left, now + PATIENCE_S
        elif now >= self._ends_at:
            raise RowMoving
        await asyncio.sleep(_LOOK_S)


def _left(page: TablePage) -> tuple[float, float]:
    """Return how many partitions cannot be read, and how many messages their owners still read."""
    away = [each for each in page.partitions if each.state not in _READ]
    lags = (math.inf if each.changelog_lag is None else each.changelog_lag for each in away)
    return len(away), sum(lags)
