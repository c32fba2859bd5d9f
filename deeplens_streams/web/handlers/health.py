"""``/health/live``, ``/health/ready`` and ``/metrics``."""

from typing import Final

import prometheus_client
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from deeplens_streams.client import models
from deeplens_streams.errors import BadRequest
from deeplens_streams.web.app_keys import HEALTH, READINESS
from deeplens_streams.web.context import Check
from deeplens_streams.web.responses import json_answer, success

_NOT_READY_CODE: Final = "NOT_READY"


async def live(_request: web.Request) -> web.Response:
    """Answer as long as the event loop turns."""
    return json_answer({**success(models.Reply), "message": "This process is alive."})


async def ready(request: web.Request) -> web.Response:
    """Ask every dependency; 503 unless each answers in time.

    ``?only=broker,storage`` looks at these alone: a load balancer wants to know who can take
    uploads, and those go on while the model is away.
    """
    checks = _chosen(await request.app[READINESS].checks(), request.query.get("only"))
    failed = [name for name, check in checks.items() if not check.ok]
    model = request.app[HEALTH].services.model
    answer = {
        **models.Readiness.blank(),
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


def _chosen(checks: dict[str, Check], only: str | None) -> dict[str, Check]:
    if not only:
        return checks
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in checks:
            raise BadRequest(f"There is no check {name[:40]!r}; there are {', '.join(checks)}.")
    return {name: checks[name] for name in names}
