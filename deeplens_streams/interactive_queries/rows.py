"""The status table from any worker: each row is asked of the worker that owns its partition."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import faust
from yarl import URL

from deeplens_streams.errors import RowMoving
from deeplens_streams.interactive_queries.peers import Peers
from deeplens_streams.interactive_queries.recovered_partitions import RecoveredPartitions
from models.records import MalformedRecord
from models.status import ImageRow
from tables.image_status import NAME
from tables.lanes import NotNow

#: Seconds in all for an answer: while nobody owns a row, and for its owner to give it. A client
#: is told within a second, also by a worker whose machine is busy.
_DEADLINE_S = 0.7
#: How often it is looked whether somebody owns a row by now.
_LOOK_S = 0.05


class TableRows:
    """`RowSource` over the Faust table and the other workers' ``/internal/rows``."""

    def __init__(
        self, app: faust.App, table: Any, peers: Peers, recovered: RecoveredPartitions
    ) -> None:
        self._app = app
        self._table = table
        self._changelog: str = table.changelog_topic.get_topic_name()
        self._recovered = recovered
        self._peers = peers

    async def row(self, image_id: str) -> ImageRow | None:
        """Return the row from the worker that owns it, or None if there is none."""
        return (await self.rows([image_id])).get(image_id)

    async def rows(self, image_ids: Sequence[str]) -> dict[str, ImageRow]:
        """Return the rows that there are, one request to each owner.

        Raises
        ------
        RowMoving
            A partition is changing hands or recovered, or its owner does not answer, within a
            second.
        """
        try:
            async with asyncio.timeout(_DEADLINE_S):
                return await self._rows(image_ids)
        except TimeoutError:
            raise RowMoving from None

    async def _rows(self, image_ids: Sequence[str]) -> dict[str, ImageRow]:
        by_owner: dict[URL, list[str]] = defaultdict(list)
        for image_id in image_ids:
            by_owner[await self._owner(image_id)].append(image_id)
        found: dict[str, ImageRow] = {}
        answers = await asyncio.gather(*(self._ask(owner, ids) for owner, ids in by_owner.items()))
        for answer in answers:
            found.update(answer)
        return found

    def local_row(self, image_id: str) -> ImageRow | None:
        """Return the row if this worker, which has to own its partition, holds it."""
        if not self._recovered.has_row(self._changelog, image_id):
            raise RowMoving
        try:
            row: ImageRow | None = self._table.get(image_id.encode())
        except NotNow:
            raise RowMoving from None
        return row

    async def _owner(self, image_id: str) -> URL:
        """Return the URL of the worker that owns the row, waiting while nobody does."""
        while True:
            try:
                return self._app.router.key_store(NAME, image_id.encode())
            except KeyError:
                await asyncio.sleep(_LOOK_S)

    async def _ask(self, owner: URL, image_ids: list[str]) -> dict[str, ImageRow]:
        if self._peers.is_here(owner):
            return {
                image_id: row
                for image_id in image_ids
                if (row := self.local_row(image_id)) is not None
            }
        answer = await self._peers.post(owner / "internal" / "rows", {"ids": image_ids})
        try:
            return {each: ImageRow.from_wire(row) for each, row in answer["rows"].items()}
        except (TypeError, ValueError, KeyError) as error:
            if isinstance(error, MalformedRecord):
                raise
            raise RowMoving from None
