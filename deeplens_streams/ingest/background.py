"""Work that goes on behind an answer, and who waits for it when the process ends."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger()


class BackgroundTasks:
    """Tasks of one owner; the event loop itself holds them only weakly."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._tasks

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin `work`; what it raises is its own to tell of."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self, patience_s: float) -> None:
        """Wait so long for what is under way, and cancel the rest."""
        try:
            async with asyncio.timeout(patience_s):
                await self.settled()
        except TimeoutError:
            left = set(self._tasks)
            log.warning("work behind answers is cut off; an audit finds it", count=len(left))
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
