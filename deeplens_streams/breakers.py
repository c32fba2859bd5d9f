"""Circuit breakers: one for each dependency of a process, shared by all who use it.

While a dependency is away, those who need it are told so at once instead of each finding out,
and one call at a time, later and later, finds out whether it is back.

A call may also fail because of what it asks for: a file with a disk error, a damaged collection.
Where an error does not tell, the dependency is pinged: if it answers, its breaker stays closed,
and the failure is that one caller's.
"""

import asyncio
import inspect
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from functools import wraps
from typing import Any, TypeVar, cast

import structlog

from deeplens_streams.errors import DependencyUnavailable
from deeplens_streams.metrics import BREAKER_FAILURES, BREAKER_OPEN, BREAKER_OPENED

log = structlog.get_logger()

T = TypeVar("T")

#: Failures without a success between them after which a breaker opens, and those of one call,
#: while the dependency answers a ping, after which the call is what is wrong.
TRIES = 3
#: Seconds that a ping may take.
PING_S = 5.0
#: Seconds until the first call that finds out, doubling up to the second figure.
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
#: Seconds after which it is said again what is waited for.
REMIND_S = 60.0


class BreakerState(StrEnum):
    CLOSED = "closed"
    """Calls go through."""
    OPEN = "open"
    """Calls are refused with the reason; one will find out whether it is back."""
    HALF_OPEN = "half-open"
    """That one is under way."""


class Breaker:
    """Of one dependency.

    Attributes
    ----------
    reason : why it is open, a sentence; None while it is closed.
    ping : asks the dependency itself, past the breaker; None where that cannot be.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.ping: Callable[[], Awaitable[None]] | None = None
        self._pinging: asyncio.Task[None] | None = None
        self._failures = 0
        self._error: DependencyUnavailable | None = None
        self._opened_at = self._next_at = 0.0
        self._wait = FIRST_WAIT_S
        self._asking = False
        #: Whether its calls tell what became of them; else those who wait in turn do.
        self._guarded = False
        self._closed = asyncio.Event()
        self._closed.set()
        self._turn = asyncio.Lock()
        BREAKER_OPEN.labels(name).set(0)

    @property
    def state(self) -> BreakerState:
        if self._error is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._asking else BreakerState.OPEN

    @property
    def is_open(self) -> bool:
        return self._error is not None

    @property
    def refuses(self) -> bool:
        """Whether a call would be refused now, unasked."""
        return self.is_open and (self._asking or time.monotonic() < self._next_at)

    @property
    def reason(self) -> str | None:
        return self._error.message if self._error else None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Let a call of the dependency through, and learn from it.

        Raises
        ------
        DependencyUnavailable
            What opened the breaker: it is too early to ask again.
        """
        self._guarded = True
        asks = self._error is not None
        if self._error is not None:
            if self.refuses:
                refusal = type(self._error)(self._error.message)
                refusal.retry_after = self._error.retry_after
                refusal.noted = refusal.untried = True
                raise refusal
            self._asking = True
        try:
            yield
        except DependencyUnavailable as error:
            if error.dependency == self.name:
                self.note(error)
            else:
                self._answered()
            raise
        except Exception:
            self._answered()  # if only to refuse
            raise
        else:
            self._answered()
        finally:
            if asks:
                self._asking = False

    @asynccontextmanager
    async def turn(self, tries: int = 0) -> AsyncIterator[None]:
        """Wait until it is back, or until it is this caller's turn to find out.

        Where calls of the dependency are guarded, they tell: what the caller does inside may
        end without one. Else it is back when the caller succeeds.

        Parameters
        ----------
        tries : of this caller, that failed while it answered others.
        """
        if not self.is_open:  # it failed, but not often enough
            await asyncio.sleep(min(FIRST_WAIT_S * 2**tries, LONGEST_WAIT_S) * _jitter())
            yield
            return
        async with self._turn:
            # Where a request is finding out at this moment, there is nothing to ask.
            least = FIRST_WAIT_S * _jitter() if self._asking else 0.0
            if not await self._is_back(max(self._next_at - time.monotonic(), least)):
                try:
                    yield
                except DependencyUnavailable as error:
                    if error.dependency == self.name:
                        self.note(error)
                    raise
                if not self._guarded:
                    self._answered()
                return
        yield

    async def _is_back(self, seconds: float) -> bool:
        """Wait so long for it to be back, and tell whether it is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        return not self.is_open

    def note(self, error: DependencyUnavailable) -> None:
        """Count a failure, once however many notice it."""
        if error.noted:
            return
        error.noted = True
        BREAKER_FAILURES.labels(self.name).inc()
        if not error.doubtful or self.ping is None:
            self._count(error)
        elif self._pinging is None or self._pinging.done():
            self._pinging = asyncio.create_task(self._find_out(error, self.ping))

    async def answers(self) -> bool:
        """Tell whether it is there, after a failure that may have been one object's."""
        if self._pinging is not None:
            await asyncio.wait({self._pinging})
        return self._failures == 0 and not self.is_open

    async def _find_out(
        self, error: DependencyUnavailable, ping: Callable[[], Awaitable[None]]
    ) -> None:
        try:
            async with asyncio.timeout(PING_S):
                await ping()
        except (DependencyUnavailable, TimeoutError):
            self._count(error)
        else:
            log.debug("a dependency answers, but not this call", **self._about(error))
            self._answered()

    def _count(self, error: DependencyUnavailable) -> None:
        self._failures += 1
        now = time.monotonic()
        if self._error is not None:
            if now < self._next_at:
                return  # it was under way when others failed
            self._error = error
            self._wait = min(self._wait * 2, LONGEST_WAIT_S)
        elif self._failures >= TRIES:
            self._open(error, now)
        else:
            # Below what is logged: one that passes is in the metric and in its answer.
            log.debug("a dependency failed", **self._about(error))
        given = min(error.retry_after or 0, LONGEST_WAIT_S)
        self._next_at = now + max(given, self._wait * _jitter())

    def _open(self, error: DependencyUnavailable, now: float) -> None:
        self._error, self._opened_at, self._wait = error, now, FIRST_WAIT_S
        self._closed.clear()
        BREAKER_OPEN.labels(self.name).set(1)
        BREAKER_OPENED.labels(self.name).inc()
        about = self._about(error)
        log.warning("a dependency is away; waiting for it", **about, failures=self._failures)

    def _about(self, error: DependencyUnavailable) -> dict[str, Any]:
        cause = str(error.__cause__ or "").partition("\n")[0][:300] or None
        return {
            "dependency": self.name,
            "code": error.code,
            "reason": error.message,
            "action": error.action,
            "cause": cause,
        }

    def _answered(self) -> None:
        if self._error is not None:
            log.info(
                "a dependency is back",
                dependency=self.name,
                away_s=round(time.monotonic() - self._opened_at, 1),
                failures=self._failures,
            )
            self._error = None
            self._closed.set()
            BREAKER_OPEN.labels(self.name).set(0)
        self._failures = 0


class Breakers:
    """The breakers of one process."""

    def __init__(self) -> None:
        self._all: dict[str, Breaker] = {}

    def __getitem__(self, dependency: str) -> Breaker:
        if dependency not in self._all:
            self._all[dependency] = Breaker(dependency)
        return self._all[dependency]

    async def patiently(
        self,
        work: Callable[[], Awaitable[T]],
        on_wait: Callable[[DependencyUnavailable], Awaitable[None]] | None = None,
        *,
        may_be_at_fault: bool = False,
    ) -> T:
        """Do `work`; while a dependency is away, wait behind its breaker and do it again.

        Parameters
        ----------
        on_wait : called with the reason to wait: the first one, when another dependency is the
            reason, and every `REMIND_S`.
        may_be_at_fault : whether to give up where the dependency answers everybody else.

        Raises
        ------
        DependencyUnavailable
            It answers everybody else.
        """
        breaker, told, told_at = None, "", 0.0
        alone = 0
        while True:
            try:
                if breaker is None:
                    return await work()
                async with breaker.turn(alone):
                    return await work()
            except DependencyUnavailable as error:
                breaker = self[error.dependency]
                alone = alone + 1 if await self.is_alone(error) else 0
                if may_be_at_fault and alone == TRIES:
                    raise
                now = time.monotonic()
                is_news = error.dependency != told or now - told_at >= REMIND_S
                if on_wait is not None and is_news:
                    told, told_at = error.dependency, now
                    await on_wait(error)

    async def is_alone(self, error: DependencyUnavailable) -> bool:
        """Tell whether a dependency that failed one caller answers others, as it may."""
        breaker = self[error.dependency]
        breaker.note(error)
        return error.doubtful and await breaker.answers()

    def known(self) -> dict[str, Breaker]:
        """Return every breaker that was ever asked for, by dependency."""
        return dict(self._all)

    def guard(self, target: T, dependency: str) -> T:
        """Return `target` with every coroutine method behind the dependency's breaker.

        All but ``ping`` and what begins and ends the target's life: a health check is to ask.
        """
        return cast(T, _Guarded(target, self[dependency]))


class _Guarded:
    def __init__(self, target: object, breaker: Breaker) -> None:
        self._target, self._breaker = target, breaker

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name in _UNGUARDED or not inspect.iscoroutinefunction(found):
            return found
        guarded = _behind(self._breaker, found)
        setattr(self, name, guarded)
        return guarded


_UNGUARDED = frozenset({"ping", "start", "ready", "close"})


def _behind(breaker: Breaker, method: Callable[..., Awaitable[Any]]) -> Any:
    @wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        with breaker.call():
            return await method(*args, **kwargs)

    return call


def _jitter() -> float:
    return random.uniform(0.5, 1.0)  # noqa: S311 - so that not all ask at once  # nosec B311
