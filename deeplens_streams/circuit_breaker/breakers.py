"""The circuit breakers of one process: waiting behind them, and calling through them."""

import inspect
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, cast

from deeplens_streams.circuit_breaker.breaker import TRIES, Breaker
from deeplens_streams.errors import DependencyUnavailable

T = TypeVar("T")

#: Seconds after which it is said again what is waited for.
REMIND_S = 60.0


class Breakers:
    """Circuit breakers of one process, by dependency."""

    def __init__(self) -> None:
        self._all: dict[str, Breaker] = {}

    def __getitem__(self, dependency: str) -> Breaker:
        if dependency not in self._all:
            self._all[dependency] = Breaker(dependency)
        return self._all[dependency]

    async def wait_until_available(
        self,
        work: Callable[[], Awaitable[T]],
        on_wait: Callable[[DependencyUnavailable], Awaitable[None]] | None = None,
        *,
        give_up_if_ours: bool = False,
    ) -> T:
        """Do `work`; while a dependency is away, wait behind its breaker and do it again.

        Parameters
        ----------
        on_wait : called with the reason to wait: the first one, when another dependency is the
            reason, and every `REMIND_S`.
        give_up_if_ours : whether to give up where the dependency answers everybody else.

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
                if give_up_if_ours and alone == TRIES:
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
        return error.ambiguous and await breaker.answers()

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
