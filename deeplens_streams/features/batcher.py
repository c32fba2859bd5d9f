"""Dynamic micro-batching: many callers, one function that is cheapest for several items at once."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from deeplens_streams.errors import ExtractorUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

_CLOSE_TIMEOUT_S = 5.0


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Result]
    submitted: float


class Batcher(Generic[Item, Result]):
    """Collects items and runs them together, one batch at a time.

    A batch leaves when it is full, when its first item has waited long enough, or at once
    when an urgent item comes. While one batch runs the next one gathers.

    Parameters
    ----------
    run : blocking; one result for each item, in order.
    size : items in one batch, at the most.
    wait_s : how long the first item of a batch waits for more, in seconds.
    executor : where `run` runs.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        *,
        size: int,
        wait_s: float,
        executor: Executor,
    ) -> None:
        self._run = run
        self._size = size
        self._wait_s = wait_s
        self._executor = executor
        self._urgent: deque[_Entry[Item, Result]] = deque()
        self._patient: deque[_Entry[Item, Result]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None
        self._batch: list[_Entry[Item, Result]] = []
        self._closed = False

    async def submit(self, item: Item, *, urgent: bool = False) -> Result:
        """Return `run`'s result for `item`; a caller that is cancelled leaves the others alone.

        Raises
        ------
        ExtractorUnavailable
            The batcher is closed, or was closed meanwhile.
        Exception
            What `run` raised for this item alone.
        """
        if self._closed:
            raise _closing()
        loop = asyncio.get_running_loop()
        entry = _Entry[Item, Result](item, loop.create_future(), loop.time())
        (self._urgent if urgent else self._patient).append(entry)
        self._consider()
        return await entry.future

    async def close(self) -> None:
        """Fail what waits, and return when the running batch is done or has had its time."""
        self._closed = True
        self._stop_timer()
        for entry in (*self._urgent, *self._patient, *self._batch):
            if not entry.future.done():
                entry.future.set_exception(_closing())
        self._urgent.clear()
        self._patient.clear()
        if self._running is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._running), _CLOSE_TIMEOUT_S)

    def _consider(self) -> None:
        """Send a batch off if it is time, else make sure that somebody asks again."""
        if self._running is not None or self._closed:
            return
        self._drop_cancelled()
        waiting = len(self._urgent) + len(self._patient)
        if not waiting:
            return
        loop = asyncio.get_running_loop()
        due = min(queue[0].submitted for queue in (self._urgent, self._patient) if queue)
        due += self._wait_s
        if self._urgent or waiting >= self._size or loop.time() >= due:
            self._dispatch()
        elif self._timer is None:
            self._timer = loop.call_at(due, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        if self._running is None and not self._closed:
            self._drop_cancelled()
            self._dispatch()

    def _dispatch(self) -> None:
        self._stop_timer()
        batch = []
        while len(batch) < self._size and (self._urgent or self._patient):
            batch.append((self._urgent or self._patient).popleft())
        if batch:
            self._batch = batch
            self._running = asyncio.create_task(self._serve(batch))

    async def _serve(self, batch: list[_Entry[Item, Result]]) -> None:
        try:
            await self._attempt(batch)
        finally:
            self._running = None
            self._batch = []
            self._consider()

    async def _attempt(self, batch: list[_Entry[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(
                self._executor, self._run, [entry.item for entry in batch]
            )
            if len(results) != len(batch):
                raise RuntimeError(f"{len(batch)} items made {len(results)} results")
        except Exception as error:
            if len(batch) > 1:  # one bad item fails alone
                for entry in batch:
                    if not entry.future.done():
                        await self._attempt([entry])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        for entry, result in zip(batch, results, strict=True):
            if not entry.future.done():
                entry.future.set_result(result)

    def _drop_cancelled(self) -> None:
        for queue in (self._urgent, self._patient):
            for entry in [each for each in queue if each.future.done()]:
                queue.remove(entry)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _closing() -> ExtractorUnavailable:
    return ExtractorUnavailable("The model is shutting down; try again later.")
