"""``POST /api/v1/admin/audit``: the ledger, and what contradicts it, a JSON object a line."""

from contextlib import aclosing
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from deeplens_streams.audit import Audit
from deeplens_streams.errors import BadRequest, DeepLensError
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.letters import known_error
from deeplens_streams.web.keys import CONTEXT

log = structlog.get_logger()

BLANK: Final[dict[str, Any]] = {"success": False, "message": None, "errorCode": None}
_TRUTH: Final = {"false": False, "true": True}


async def audit(request: web.Request) -> web.StreamResponse:
    """Audit a tenant, or all; with ``repair=true`` what can be mended is.

    A line is a ``finding``, a ``tenant``'s ledger, the ``total`` at the end, or an ``error`` where
    it could not go on.
    """
    context = request.app[CONTEXT]
    tenant, repair = request.query.get("tenantId"), request.query.get("repair", "false").lower()
    if repair not in _TRUTH:
        raise BadRequest("repair is true or false.")
    named = None if tenant is None else [check_tenant_id(tenant)]
    tenants = named or await context.services.storage.tenants()
    work = Audit(
        context.services,
        context.rows,
        context.publish,
        context.backlog,
        repair=_TRUTH[repair],
    )
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    try:
        async with aclosing(work.run(tenants)) as lines:
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
