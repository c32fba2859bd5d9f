"""Dynamic micro-batching: many callers, one function that is cheapest for several items at once."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
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
    """Collects items and runs them together.

    A batch leaves when it is full, when its first item has waited long enough, or at once
    when an urgent item comes, as soon as one of the `parallel` lanes is free. While all are
    taken the next batches gather; what waits is shared out evenly to the lanes that are free.
    Urgent items go first, and alone: a person waits for one result, and not for a whole batch.

    Parameters
    ----------
    run : blocking; one result for each item, in order. Called from `parallel` threads at once.
    size : items in one batch, at the most.
    wait_s : how long the first item of a batch waits for more, in seconds.
    executor : where `run` runs.
    parallel : batches at once, at the most.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        *,
        size: int,
        wait_s: float,
        executor: Executor,
        parallel: int = 1,
    ) -> None:
        self._run = run
        self._size = size
        self._wait_s = wait_s
        self._executor = executor
        self._parallel = parallel
        self._urgent: deque[_Entry[Item, Result]] = deque()
        self._patient: deque[_Entry[Item, Result]] = deque()
        #: Urgent items went alone while patient ones waited, and none of these has gone since.
        self._passed = False
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[asyncio.Task[None], list[_Entry[Item, Result]]] = {}
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
        """Fail what waits, and return when running batches are done or have had their time."""
        self._closed = True
        self._stop_timer()
        running = [entry for batch in self._running.values() for entry in batch]
        for entry in (*self._urgent, *self._patient, *running):
            if not entry.future.done():
                entry.future.set_exception(_closing())
        self._urgent.clear()
        self._patient.clear()
        if self._running:
            await asyncio.wait(set(self._running), timeout=_CLOSE_TIMEOUT_S)

    def _consider(self) -> None:
        """Send off what it is time for, and make sure that somebody asks again for the rest."""
        self._stop_timer()
        self._drop_cancelled()
        if self._closed:
            return
        while self._urgent and self._free():
            self._dispatch(self._urgent_batch())
        if not self._patient or not self._free():
            return
        loop, due = asyncio.get_running_loop(), self._due()
        if loop.time() < due:
            self._timer = loop.call_at(due, self._consider)
            return
        self._passed = False
        while self._patient and (free := self._free()):
            self._dispatch(_take(self._patient, self._size, math.ceil(len(self._patient) / free)))

    def _free(self) -> int:
        return self._parallel - len(self._running)

    def _due(self) -> float:
        """Return when the next patient batch is to leave, on the loop's clock."""
        if len(self._patient) >= self._size:
            return 0.0
        return self._patient[0].submitted + self._wait_s

    def _urgent_batch(self) -> list[_Entry[Item, Result]]:
        """Urgent items alone, which are done soonest; every other time patient ones go along.

        Else urgent ones that never end would keep those from the model.
        """
        batch = _take(self._urgent, self._size)
        if self._passed:
            batch += _take(self._patient, self._size - len(batch))
            self._passed = False
        else:
            self._passed = bool(self._patient)
        return batch

    def _dispatch(self, batch: list[_Entry[Item, Result]]) -> None:
        task = asyncio.create_task(self._attempt(batch))
        self._running[task] = batch
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled():
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


def _take(queue: deque[_Entry[Item, Result]], *most: int) -> list[_Entry[Item, Result]]:
    return [queue.popleft() for _ in range(min(len(queue), *most))]


def _closing() -> ExtractorUnavailable:
    return ExtractorUnavailable("The model is shutting down; try again later.")
