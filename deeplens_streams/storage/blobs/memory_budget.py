"""A bound on the memory that uploads in flight may take together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MIB = 1024 * 1024


class MemoryBudget:
    """So many MiB, handed out in the order of asking."""

    def __init__(self, mebibytes: int) -> None:
        self._total = mebibytes
        self._free = asyncio.Semaphore(mebibytes)
        # One asker collects at a time: two with a part each would wait for each other forever.
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def take(self, size: int) -> AsyncIterator[None]:
        """Hold room for `size` bytes, rounded up; more than there is takes all."""
        wanted = min(self._total, max(1, -(-size // MIB)))
        held = 0
        try:
            async with self._turn:
                while held < wanted:
                    await self._free.acquire()
                    held += 1
            yield
        finally:
            for _ in range(held):
                self._free.release()
