"""The circuit breaker of one dependency: opens, lets one call find out, and closes."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from typing import Any
from weakref import WeakSet

import structlog

from deeplens_streams.errors import DependencyUnavailable
from deeplens_streams.metrics import BREAKER_FAILURES, BREAKER_OPEN, BREAKER_OPENED

log = structlog.get_logger()

#: Failures without a success between them after which a breaker opens, and those of one call,
#: while the dependency answers a ping, after which the call is what is wrong.
TRIES = 3
#: Seconds that a ping may take.
PING_S = 5.0
#: Seconds until the first call that finds out, doubling up to the second figure.
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0


class BreakerState(StrEnum):
    CLOSED = "closed"
    """Calls go through."""
    OPEN = "open"
    """Calls are refused with the reason; one will find out whether it is back."""
    HALF_OPEN = "half-open"
    """That one is under way."""


class CircuitOpen(Exception):
    """Cause of an error with which an open breaker refused a call: the dependency was not asked."""


def was_refused(error: BaseException) -> bool:
    """Tell whether an open breaker raised it, so that nothing was asked of the dependency."""
    return isinstance(error.__cause__, CircuitOpen)


class Breaker:
    """Circuit breaker of one dependency.

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
        #: Failures that were told already: several who meet one each tell it.
        self._counted: WeakSet[DependencyUnavailable] = WeakSet()
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
                raise refusal from CircuitOpen(f"The breaker of {self.name} is open.")
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
        if error in self._counted or was_refused(error):
            return
        self._counted.add(error)
        BREAKER_FAILURES.labels(self.name).inc()
        if not error.ambiguous or self.ping is None:
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


def _jitter() -> float:
    return random.uniform(0.5, 1.0)  # noqa: S311 - so that not all ask at once  # nosec B311
