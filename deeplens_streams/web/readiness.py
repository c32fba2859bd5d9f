"""Whether the parts that a process needs answer: asked all at once, and not for each who asks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from deeplens_streams.errors import DeepLensError
from deeplens_streams.web.context import Check, HealthContext

#: Seconds that a dependency has for its answer.
DEADLINE_S: Final = 2.0
#: Seconds for which an answer holds. Anybody may ask, and each look writes to storage.
FRESH_S: Final = 1.0


class Readiness:
    """The checks of one process: one look at a time, whose findings hold for a moment."""

    def __init__(self, context: HealthContext) -> None:
        self._context = context
        self._looking: asyncio.Task[Mapping[str, Check]] | None = None
        self._stale_at = 0.0

    async def checks(self) -> dict[str, Check]:
        """Return what each dependency's check says, by name."""
        looking = self._looking
        if looking is None or (looking.done() and _now() >= self._stale_at):
            looking = self._looking = asyncio.create_task(self._look())
        # Shielded: whoever hangs up first must not end it for the others.
        return self._with_breakers(await asyncio.shield(looking))

    async def _look(self) -> Mapping[str, Check]:
        services = self._context.services
        vectors, features = services.vectors, services.features
        streams, storage, engine, extractor = await asyncio.gather(
            _stream_checks(self._context.stream_checks),
            _ping(services.storage.ping),
            _ping(vectors.ping if vectors is not None else None),
            _ping(features.ping if features is not None else None),
        )
        self._stale_at = _now() + FRESH_S
        return {**streams, "storage": storage, "vectors": engine, "extractor": extractor}

    def _with_breakers(self, found: Mapping[str, Check]) -> dict[str, Check]:
        checks = dict(found)
        for name, breaker in self._context.services.breakers.known().items():
            if breaker.refuses:
                checks[name] = Check(ok=False, detail=breaker.reason or "", breaker=breaker.state)
            elif breaker.is_open and name in checks:
                # Nobody asks a process that is not ready, and then it would never close.
                checks[name] = replace(checks[name], breaker=breaker.state)
        return checks


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _stream_checks(ask: Callable[[], Awaitable[Mapping[str, Check]]]) -> Mapping[str, Check]:
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await ask()
    except TimeoutError:
        late = Check(ok=False, detail=f"No answer within {DEADLINE_S:g} s.")
        return {"broker": late, "tables": late}


async def _ping(ping: Callable[[], Awaitable[None]] | None) -> Check:
    if ping is None:
        return Check(ok=True, detail="Not in this process.")
    try:
        async with asyncio.timeout(DEADLINE_S):
            await ping()
    except TimeoutError:
        return Check(ok=False, detail=f"No answer within {DEADLINE_S:g} s.")
    except DeepLensError as error:
        return Check(ok=False, detail=error.message)
    return Check(ok=True)
