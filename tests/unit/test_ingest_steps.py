"""Steps of an upload: what is undone when one fails, and who waits for it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from deeplens_streams.circuit_breaker import Breakers, CircuitOpen
from deeplens_streams.circuit_breaker import breaker as circuit_breaker
from deeplens_streams.errors import StorageUnavailable
from deeplens_streams.ingest.background import BackgroundTasks
from deeplens_streams.ingest.steps import Step, StepRunner
from deeplens_streams.storage.blobs.store import AlreadyThere


class Journal:
    """Steps that write down what happens to them; one of them may fail."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.background = BackgroundTasks()
        self._runner = StepRunner(Breakers(), self.background)

    def step(self, name: str, error: BaseException | None = None) -> Step:
        async def do() -> None:
            self.lines.append(name)
            if error is not None:
                raise error

        return Step(do, self.writes(f"not {name}"))

    def writes(self, line: str) -> Callable[[], Awaitable[None]]:
        async def write() -> None:
            self.lines.append(line)

        return write

    async def run(self, *steps: Step, patience_s: float = 5.0) -> None:
        await self._runner.run(steps, patience_s=patience_s)


async def test_steps_are_done_in_order() -> None:
    journal = Journal()
    await journal.run(journal.step("one"), journal.step("two"))
    assert journal.lines == ["one", "two"]


@pytest.mark.parametrize("error", [StorageUnavailable(), ValueError(), asyncio.CancelledError()])
async def test_what_was_done_is_undone_in_reverse(error: BaseException) -> None:
    journal = Journal()
    steps = [journal.step("one"), journal.step("two"), journal.step("three", error)]
    with pytest.raises(type(error)):
        await journal.run(*steps, journal.step("four"))
    # The last may have been done, though it failed.
    assert journal.lines == ["one", "two", "three", "not three", "not two", "not one"]


@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_step_that_changed_nothing_is_not_undone(is_refused: bool) -> None:
    error: Exception = AlreadyThere()
    if is_refused:
        error = StorageUnavailable()
        error.__cause__ = CircuitOpen()  # as an open breaker does
    journal = Journal()
    with pytest.raises(type(error)):
        await journal.run(journal.step("one"), journal.step("two", error))
    assert journal.lines == ["one", "two", "not one"]


async def test_undoing_goes_on_behind_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "FIRST_WAIT_S", 0.001)
    journal, back = Journal(), asyncio.Event()

    async def undo() -> None:
        if not back.is_set():
            raise StorageUnavailable
        journal.lines.append("not two")

    steps = [journal.step("one"), Step(journal.writes("two"), undo)]
    with pytest.raises(ValueError, match="three"):
        await journal.run(*steps, journal.step("three", ValueError("three")), patience_s=0.01)
    assert "not one" not in journal.lines
    back.set()
    await journal.background.settled()
    assert journal.lines[-2:] == ["not two", "not one"]


async def test_what_cannot_be_undone_keeps_what_was_done_before_it() -> None:
    journal = Journal()

    async def undo() -> None:
        raise RuntimeError("a metadata object that cannot be removed needs its bytes")

    steps = [journal.step("one"), Step(journal.writes("two"), undo)]
    with pytest.raises(ValueError, match="three"):
        await journal.run(*steps, journal.step("three", ValueError("three")))
    assert "not one" not in journal.lines


async def test_who_closes_waits_for_what_is_under_way() -> None:
    background, release, lines = BackgroundTasks(), asyncio.Event(), list[str]()

    async def work() -> None:
        await release.wait()
        lines.append("done")

    background.start(work())
    closing = asyncio.create_task(background.close(5.0))
    await asyncio.sleep(0)
    assert not closing.done()
    release.set()
    await closing
    assert lines == ["done"]
    assert background.idle


async def test_who_closes_does_not_wait_for_ever() -> None:
    background, cut_off = BackgroundTasks(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.set()

    background.start(work())
    await background.close(0.01)
    assert cut_off.is_set()
    assert background.idle
