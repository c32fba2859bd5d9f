"""Events that wait for their partition's rows, while those of other partitions go on."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
W = TypeVar("W")


class NotNow(Exception):
    """Rows of an event's partition are read from Kafka again; those of others are there.

    Attributes
    ----------
    until_there : returns when they are, and whether the partition is still this worker's.
    """

    def __init__(self, until_there: Callable[[], Awaitable[bool]]) -> None:
        super().__init__("a partition of a table is read from Kafka again")
        self.until_there = until_there


class Lanes(Generic[W]):
    """Events of partitions whose rows cannot be had, each partition's in their order.

    Those of other partitions pass by. Nothing bounds them but what Kafka hands on, as events are
    small; they are unacknowledged, so a worker that ends leaves them to the next.
    """

    def __init__(self, handle: Callable[[W], Awaitable[None]]) -> None:
        self._handle = handle
        self._waiting: dict[int, deque[W]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def unless_held(self, partition: int, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do `attempt` unless events of the same partition wait before this one."""
        if partition in self._waiting:
            raise NotNow(_there)
        return await attempt()

    def hold(self, partition: int, work: W, held: NotNow) -> None:
        """Take an event aside until its partition's rows are there, and all before it are done."""
        if partition in self._waiting:
            self._waiting[partition].append(work)
            return
        self._waiting[partition] = deque([work])
        task = asyncio.create_task(self._go_on(partition, held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _go_on(self, partition: int, held: NotNow) -> None:
        waiting = self._waiting[partition]
        try:
            while waiting:
                if not await held.until_there():
                    return  # whoever has the partition by now reads them anew
                try:
                    await self._handle(waiting[0])
                except NotNow as again:
                    held = again
                else:
                    waiting.popleft()
        finally:
            del self._waiting[partition]

    async def done(self) -> None:
        await asyncio.gather(*self._tasks)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


async def _there() -> bool:
    return True
