"""``/health/live``, ``/health/ready`` and ``/metrics``."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import prometheus_client
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from deeplens_streams.errors import BadRequest, DeepLensError
from deeplens_streams.web.answers import json_answer
from deeplens_streams.web.context import Check, HealthContext
from deeplens_streams.web.keys import HEALTH

#: Seconds that a dependency has for its answer.
DEADLINE_S: Final = 2.0

LIVE_BLANK: Final[dict[str, Any]] = {"success": False, "message": None, "errorCode": None}
READY_BLANK: Final[dict[str, Any]] = {
    "success": False,
    "message": None,
    "status": None,
    "checks": {},
    "model": None,
    "warning": None,
    "errorCode": None,
}

_NOT_READY_CODE: Final = "NOT_READY"


async def live(_request: web.Request) -> web.Response:
    """Answer as long as the event loop turns."""
    return json_answer({**LIVE_BLANK, "success": True, "message": "This process is alive."})


async def ready(request: web.Request) -> web.Response:
    """Ask every dependency at once; 503 unless each answers in time.

    ``?only=broker,storage`` looks at these alone: a load balancer wants to know who can take
    uploads, and those go on while the model is away.
    """
    context = request.app[HEALTH]
    checks = _chosen(await _all_checks(context), request.query.get("only"))
    failed = [name for name, check in checks.items() if not check.ok]
    model = context.services.model
    answer = {
        **READY_BLANK,
        "success": not failed,
        "message": f"Not ready: {', '.join(failed)}." if failed else "Everything answers.",
        "status": "unavailable" if failed else "ready",
        "checks": {
            name: {"ok": check.ok, "detail": check.detail, "breaker": check.breaker}
            for name, check in checks.items()
        },
        "model": {
            "name": model.name,
            "version": model.version,
            "dimension": model.dimension,
            "licence": model.licence,
        },
        "warning": model.warning,
        "errorCode": _NOT_READY_CODE if failed else None,
    }
    return json_answer(answer, status=503 if failed else 200)


async def metrics(_request: web.Request) -> web.Response:
    """Answer every counter of this process in Prometheus's text form."""
    return web.Response(
        body=prometheus_client.generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )


async def _all_checks(context: HealthContext) -> dict[str, Check]:
    services = context.services
    vectors, features = services.vectors, services.features
    streams, storage, engine, extractor = await asyncio.gather(
        _stream_checks(context.stream_checks),
        _ping(services.storage.ping),
        _ping(vectors.ping if vectors is not None else None),
        _ping(features.ping if features is not None else None),
    )
    asked = {**streams, "storage": storage, "vectors": engine, "extractor": extractor}
    for name, breaker in services.breakers.known().items():
        if breaker.refuses:
            asked[name] = Check(ok=False, detail=breaker.reason or "", breaker=breaker.state)
        elif breaker.is_open and name in asked:
            # Nobody asks a process that is not ready, and then it would never close.
            asked[name] = replace(asked[name], breaker=breaker.state)
    return asked


def _chosen(checks: dict[str, Check], only: str | None) -> dict[str, Check]:
    if not only:
        return checks
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in checks:
            raise BadRequest(f"There is no check {name[:40]!r}; there are {', '.join(checks)}.")
    return {name: checks[name] for name in names}


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
