"""``POST /api/v1/admin/audit``: the ledger, and what contradicts it, a JSON object a line."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
import structlog
from aiohttp import web

from deeplens_streams.audit.rows import RetryingRows
from deeplens_streams.audit.runner import Audit
from deeplens_streams.errors import DeepLensError
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.pipeline.dead_letters import known_error
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.forms.fields import truth

log = structlog.get_logger()

#: Seconds after which a line says how far it is: proxies end what is silent for a minute.
_SILENCE_S = 5.0


async def audit(request: web.Request) -> web.StreamResponse:
    """Audit a tenant, or all; with ``repair=true`` what can be mended is.

    With ``checksums=true`` every original is read; with ``outdated=true`` it is a fault, too, that
    an older preprocessing made something.

    A line is a ``finding``, a tenant's ledger (``tenant``), how far it is (``progress``), the
    ``total`` at the end, or an ``error`` where it could not go on.
    """
    context = request.app[CONTEXT]
    tenant = request.query.get("tenantId")
    repair, checksums, outdated = (
        truth(request.query.get(name), name) for name in ("repair", "checksums", "outdated")
    )
    named = None if tenant is None else [check_tenant_id(tenant)]
    tenants = named or await context.services.storage.tenants()
    rows = RetryingRows(context.rows, context.tables)
    work = Audit(
        context.services,
        rows,
        rows.pages,
        context.publish,
        context.backlog,
        repair=repair,
        checksums=checksums,
        outdated=outdated,
        registry=context.registry,
    )
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    try:
        async with aclosing(_never_silent(work, tenants, is_all=named is None)) as lines:
            async for line in lines:
                await response.write(orjson.dumps(line) + b"\n")
    except ConnectionError:
        raise
    except Exception as error:  # the answer has begun: only a line of it can say so
        if not isinstance(error, DeepLensError):
            log.exception("an audit failed")
        known = known_error(error)
        said = {"type": "error", "errorCode": known.code, "message": known.message}
        await response.write(orjson.dumps(said) + b"\n")
    await response.write_eof()
    return response


async def _never_silent(
    work: Audit, tenants: list[str], *, is_all: bool
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the lines of an audit, and how far it is while there is none."""
    async with aclosing(work.run(tenants, is_all=is_all)) as lines:
        while True:
            following = asyncio.ensure_future(_following(lines))
            try:
                while not (await asyncio.wait({following}, timeout=_SILENCE_S))[0]:
                    yield work.progress
                line = following.result()
            finally:
                # An audit that is at work cannot be closed.
                following.cancel()
                await asyncio.wait({following})
            if line is None:
                return
            yield line


async def _following(lines: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
    return await anext(lines, None)
