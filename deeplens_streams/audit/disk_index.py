"""Listings that are asked about often, on the disk: each is read once in an audit, if at all."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

from deeplens_streams.audit.report import pages_of
from deeplens_streams.errors import StorageFull
from deeplens_streams.host.scratch_database import open_scratch

#: Of what there is, KiB that are in memory.
_CACHE_KIB = 4 * 1024


class DiskIndex:
    """What listings say of each image, about 65 bytes of disk an entry; it goes with the audit."""

    def __init__(self) -> None:
        self._open: sqlite3.Connection | None = None
        self._filled: dict[tuple[str, str], datetime] = {}
        self._turn = asyncio.Lock()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
            self._filled.clear()

    async def fill(
        self, kind: str, tenant: str, listing: AsyncGenerator[tuple[str, str]]
    ) -> datetime:
        """Take in a listing unless that is done, and return when it was begun.

        Parameters
        ----------
        listing : image IDs, each with what is to be known of it.

        Raises
        ------
        StorageFull
            There is no room for temporary files.
        """
        async with self._turn, aclosing(listing):
            if (kind, tenant) not in self._filled:
                began = datetime.now(UTC)
                async for page in pages_of(listing):
                    rows = [(image_id, kind, tenant, said) for image_id, said in page]
                    try:
                        self._database.executemany(
                            "INSERT OR IGNORE INTO listed VALUES (?, ?, ?, ?)", rows
                        )
                    except sqlite3.Error as error:
                        raise StorageFull(
                            "There is no room for an audit's temporary files; make room, or set "
                            "TMPDIR to a folder that has it."
                        ) from error
                self._filled[kind, tenant] = began
            return self._filled[kind, tenant]

    def said(self, kind: str, image_id: str, *, tenant: str | None = None) -> set[str]:
        """Return what the listings of a tenant, or of all, say of an image."""
        found = self._database.execute(
            "SELECT said, tenant FROM listed WHERE image = ? AND kind = ?", (image_id, kind)
        )
        return {said for said, owner in found if tenant in (None, owner)}

    @property
    def _database(self) -> sqlite3.Connection:
        if self._open is None:
            self._open = open_scratch(None, cache_kib=_CACHE_KIB)
            self._open.execute(
                "CREATE TABLE listed (image TEXT, kind TEXT, tenant TEXT, said TEXT,"
                " PRIMARY KEY (image, kind, tenant, said)) WITHOUT ROWID"
            )
        return self._open
