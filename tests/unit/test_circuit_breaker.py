"""A breaker opens, lets one call at a time find out, and closes."""

import asyncio
import logging
import time
from contextlib import suppress

import pytest
import structlog
from prometheus_client import REGISTRY
from structlog.testing import LogCapture, capture_logs

from deeplens_streams.circuit_breaker import TRIES, Breakers, BreakerState, breakers, was_refused
from deeplens_streams.circuit_breaker import breaker as circuit_breaker
from deeplens_streams.errors import (
    DependencyUnavailable,
    ExtractorUnavailable,
    StorageFull,
    StorageUnavailable,
    UndecodableImage,
    VectorsUnavailable,
)
from tests.support.web_server import until

FAILURES = ("deeplens_breaker_failures_total", {"dependency": "vectors"})


class Dependency:
    """Answers or raises what it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls = 0
        self.most_at_once = self._now = 0
        self._called = asyncio.Semaphore(0)

    async def called_more(self, times: int) -> None:
        """Return after so many more calls."""
        while self._called.locked() is False:
            await self._called.acquire()
        for _ in range(times):
            await self._called.acquire()

    async def ask(self) -> str:
        self.calls += 1
        self._called.release()
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        if self.error is not None:
            raise type(self.error)(*self.error.args)
        return "answer"

    async def ping(self) -> None:
        self.calls += 1

    def plain(self) -> int:
        return 1


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(circuit_breaker, "LONGEST_WAIT_S", 0.02)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """What a worker logs, which is nothing below INFO."""
    kept = LogCapture()
    level = structlog.make_filtering_bound_logger(logging.INFO)
    monkeypatch.setattr(
        circuit_breaker, "log", structlog.wrap_logger(None, processors=[kept], wrapper_class=level)
    )
    return kept


async def fail(target: Dependency, times: int = TRIES) -> None:
    for _ in range(times):
        with pytest.raises(VectorsUnavailable):
            await target.ask()


async def test_calls_go_through_until_some_have_failed() -> None:
    known, real = Breakers(), Dependency()
    guarded = known.guard(real, "vectors")
    assert await guarded.ask() == "answer"
    real.error = VectorsUnavailable("away")
    await fail(guarded, TRIES - 1)
    assert known["vectors"].state is BreakerState.CLOSED
    await fail(guarded, 1)
    assert known["vectors"].state is BreakerState.OPEN
    assert known["vectors"].reason == "away"
    before = real.calls
    await fail(guarded, 5)
    assert real.calls == before
    assert guarded.plain() == 1
    await guarded.ping()
    assert real.calls == before + 1


def test_a_wait_that_the_dependency_asks_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "LONGEST_WAIT_S", 5.0)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for given, kept in ((3, 3.0), (3600, 5.0)):
        breaker = Breakers()["vectors"]
        for _ in range(TRIES):
            error = VectorsUnavailable()
            error.retry_after = given
            breaker.note(error)
        with pytest.raises(VectorsUnavailable) as caught, breaker.call():
            raise AssertionError
        assert caught.value.retry_after == given
        now += kept - 0.1
        assert breaker.refuses
        now += 0.2
        assert not breaker.refuses


async def test_what_answers_with_a_refusal_is_not_away() -> None:
    known, real = Breakers(), Dependency()
    guarded = known.guard(real, "vectors")
    real.error = UndecodableImage()
    for _ in range(2 * TRIES):
        with pytest.raises(UndecodableImage):
            await guarded.ask()
    assert known["vectors"].state is BreakerState.CLOSED


async def test_a_full_disk_is_not_storage_that_does_not_answer() -> None:
    known, real = Breakers(), Dependency()
    guarded = known.guard(real, "storage")
    real.error = StorageFull()
    for _ in range(2 * TRIES):
        with pytest.raises(StorageFull):
            await guarded.ask()
    assert not known["storage"].is_open


async def test_one_call_finds_out_and_closes_it() -> None:
    known, real = Breakers(), Dependency()
    guarded = known.guard(real, "vectors")
    real.error = VectorsUnavailable()
    await fail(guarded)
    real.error = None
    with capture_logs() as logs:
        async with asyncio.timeout(5):
            while known["vectors"].is_open:
                try:
                    assert await guarded.ask() == "answer"
                except VectorsUnavailable:
                    await asyncio.sleep(0.001)
    assert [entry["event"] for entry in logs] == ["a dependency is back"]
    assert await guarded.ask() == "answer"


async def test_many_who_wait_ask_one_after_the_other_and_all_go_on() -> None:
    known, real = Breakers(), Dependency()
    guarded = known.guard(real, "vectors")
    real.error = VectorsUnavailable()
    with capture_logs() as logs:
        await fail(guarded)
        real.most_at_once = 0

        async def patient() -> None:
            while True:
                try:
                    async with known["vectors"].turn():
                        await guarded.ask()
                        return
                except VectorsUnavailable:
                    continue

        waiting = [asyncio.create_task(patient()) for _ in range(30)]
        async with asyncio.timeout(5):
            await real.called_more(4)
        assert real.most_at_once == 1
        real.error = None
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting)
    events = [entry["event"] for entry in logs]
    assert events.count("a dependency is away; waiting for it") == 1
    assert events.count("a dependency is back") == 1
    assert len(events) == 2 + TRIES - 1  # those at debug, which nobody sees


async def test_an_outage_is_a_line_at_its_beginning_and_one_at_its_end(
    logged: LogCapture,
) -> None:
    known, real = Breakers(), Dependency()
    guarded = known.guard(real, "vectors")
    before = REGISTRY.get_sample_value(*FAILURES) or 0
    for reason in ("the first", "the second", "the last"):
        real.error = VectorsUnavailable(reason)
        await fail(guarded, 1)
    assert REGISTRY.get_sample_value(*FAILURES) == before + TRIES
    (opened,) = logged.entries
    assert opened["event"] == "a dependency is away; waiting for it"
    assert (opened["dependency"], opened["code"]) == ("vectors", "VECTORS_UNAVAILABLE")
    assert (opened["failures"], opened["reason"]) == (TRIES, "the last")
    real.error = None
    async with asyncio.timeout(5), known["vectors"].turn():
        await guarded.ask()
    assert [each["event"] for each in logged.entries[1:]] == ["a dependency is back"]


async def test_failures_that_pass_are_counted_and_not_logged(logged: LogCapture) -> None:
    known, real = Breakers(), Dependency()
    guarded = known.guard(real, "vectors")
    for _ in range(3):
        real.error = VectorsUnavailable()
        await fail(guarded, TRIES - 1)
        real.error = None
        await guarded.ask()
    assert logged.entries == []


async def test_who_waits_does_not_spin_while_a_request_finds_out() -> None:
    known, real = Breakers(), Dependency()
    guarded = known.guard(real, "vectors")
    real.error = VectorsUnavailable()
    await fail(guarded)
    await asyncio.sleep(0.02)
    tries = 0

    async def wait_in_turn() -> None:
        nonlocal tries
        while True:
            tries += 1
            with suppress(VectorsUnavailable):
                async with known["vectors"].turn():
                    await guarded.ask()

    with known["vectors"].call():  # a request that takes its time
        waiting = asyncio.create_task(wait_in_turn())
        await asyncio.sleep(0.1)
        waiting.cancel()
    assert 0 < tries < 50


async def test_what_nobody_guards_is_waited_for_all_the_same() -> None:
    known, real = Breakers(), Dependency()
    real.error = StorageFull()
    space = known["space"]
    for _ in range(TRIES):
        with pytest.raises(StorageFull) as caught:
            await real.ask()
        space.note(caught.value)
    assert space.is_open
    with pytest.raises(StorageFull):
        async with space.turn():
            await real.ask()
    assert space.is_open
    real.error = None
    async with space.turn():
        await real.ask()
    assert not space.is_open


async def test_a_refusal_says_that_nothing_was_asked_and_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(circuit_breaker, "FIRST_WAIT_S", 60.0)
    monkeypatch.setattr(circuit_breaker, "LONGEST_WAIT_S", 60.0)
    known, real = Breakers(), Dependency()
    guarded = known.guard(real, "vectors")
    real.error = VectorsUnavailable()
    with pytest.raises(VectorsUnavailable) as asked:
        await guarded.ask()
    assert not was_refused(asked.value)
    await fail(guarded, TRIES - 1)
    failures = REGISTRY.get_sample_value(*FAILURES)
    with pytest.raises(VectorsUnavailable) as refused:
        await guarded.ask()
    assert was_refused(refused.value)
    known["vectors"].note(refused.value)
    assert REGISTRY.get_sample_value(*FAILURES) == failures


async def test_an_error_that_several_notice_counts_once() -> None:
    space, error = Breakers()["space"], StorageFull()
    for _ in range(2 * TRIES):
        space.note(error)
    assert not space.is_open


async def test_a_cancelled_call_tells_nothing() -> None:
    storage = Breakers()["storage"]
    for _ in range(TRIES):
        storage.note(StorageUnavailable())
    await asyncio.sleep(0.02)
    with pytest.raises(asyncio.CancelledError), storage.call():
        raise asyncio.CancelledError
    assert storage.state is BreakerState.OPEN


async def test_who_waits_in_turn_and_asks_something_else_tells_nothing() -> None:
    known, real = Breakers(), Dependency()
    guarded = known.guard(real, "vectors")
    real.error = VectorsUnavailable()
    await fail(guarded)
    vectors, asked = known["vectors"], real.calls
    async with vectors.turn():
        pass  # its picture was deleted meanwhile: there was nothing to ask
    for error in (StorageUnavailable(), UndecodableImage()):
        with pytest.raises(type(error)):
            async with vectors.turn():
                raise error
    assert vectors.is_open
    assert real.calls == asked
    real.error = None
    async with vectors.turn():
        await guarded.ask()
    assert not vectors.is_open


async def test_another_dependency_that_fails_does_not_make_room() -> None:
    space = Breakers()["space"]
    for _ in range(TRIES):
        space.note(StorageFull())
    with pytest.raises(StorageUnavailable):
        async with space.turn():
            raise StorageUnavailable
    assert space.is_open


async def reasons_told(*errors: DependencyUnavailable) -> list[str]:
    """Return the codes of what was said of work that fails so before it succeeds."""
    left, told = list(errors), []

    async def work() -> None:
        if left:
            raise left.pop(0)

    async def tell(error: DependencyUnavailable) -> None:
        told.append(error.code)

    async with asyncio.timeout(5):
        await Breakers().wait_until_available(work, tell)
    return told


async def test_who_waits_says_so_again_when_another_dependency_is_the_reason() -> None:
    told = await reasons_told(StorageUnavailable(), StorageUnavailable(), ExtractorUnavailable())
    assert told == ["STORAGE_UNAVAILABLE", "EXTRACTOR_UNAVAILABLE"]


@pytest.mark.parametrize(("remind_s", "times"), [(60.0, 1), (0.0, 4)])
async def test_who_waits_says_so_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, remind_s: float, times: int
) -> None:
    monkeypatch.setattr(breakers, "REMIND_S", remind_s)
    assert (
        await reasons_told(*[StorageUnavailable() for _ in range(4)])
        == ["STORAGE_UNAVAILABLE"] * times
    )


# What fails for one caller only --------------------------------------------------------------


class Store:
    """One of its objects cannot be read; and perhaps none can."""

    def __init__(self) -> None:
        self.is_away = False
        self.asked: list[str] = []
        self.pings = 0

    async def get(self, name: str) -> str:
        self.asked.append(name)
        if self.is_away or name == "bad":
            error = StorageUnavailable()
            error.ambiguous = True
            raise error
        return name

    async def ping(self) -> None:
        self.pings += 1
        if self.is_away:
            raise StorageUnavailable


def stored() -> tuple[Store, Store, Breakers]:
    """Return a store, the same behind its breaker, and the breakers."""
    real, known = Store(), Breakers()
    guarded = known.guard(real, "storage")
    known["storage"].ping = real.ping
    return real, guarded, known


async def test_one_object_that_fails_takes_the_others_from_nobody() -> None:
    _, guarded, known = stored()
    for _ in range(3 * TRIES):
        with pytest.raises(StorageUnavailable):
            await guarded.get("bad")
        assert await known["storage"].answers()
    assert known["storage"].state is BreakerState.CLOSED
    assert await guarded.get("good") == "good"


async def test_who_asks_for_it_is_at_fault_after_some_tries() -> None:
    real, guarded, known = stored()
    with pytest.raises(StorageUnavailable):
        await known.wait_until_available(lambda: guarded.get("bad"), give_up_if_ours=True)
    assert real.asked == ["bad"] * TRIES


async def test_nobody_is_at_fault_while_the_dependency_is_away() -> None:
    real, guarded, known = stored()
    real.is_away = True
    waiting = asyncio.create_task(
        known.wait_until_available(lambda: guarded.get("good"), give_up_if_ours=True)
    )
    async with asyncio.timeout(10):
        await until(lambda: known["storage"].is_open and len(real.asked) >= 3 * TRIES)
        assert not waiting.done()
        real.is_away = False
        assert await waiting == "good"
    assert known["storage"].state is BreakerState.CLOSED


async def test_an_object_that_fails_does_not_keep_it_open() -> None:
    real, guarded, known = stored()
    real.is_away = True
    async with asyncio.timeout(10):
        while known["storage"].state is BreakerState.CLOSED:
            with suppress(StorageUnavailable):
                await guarded.get("bad")
            await known["storage"].answers()
        real.is_away = False
        while known["storage"].state is not BreakerState.CLOSED:
            with suppress(StorageUnavailable):
                await guarded.get("bad")
            await known["storage"].answers()
    assert await guarded.get("good") == "good"


async def test_a_ping_that_hangs_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "PING_S", 0.01)
    _, guarded, known = stored()
    known["storage"].ping = asyncio.Event().wait  # type: ignore[assignment]
    for _ in range(TRIES):
        with pytest.raises(StorageUnavailable):
            await guarded.get("bad")
        assert not await known["storage"].answers()
    assert known["storage"].state is not BreakerState.CLOSED
