"""Errors as the endpoint's own object: no exception reaches a client."""

import structlog
from aiohttp import web

from deeplens_streams.errors import (
    BadRequest,
    DeepLensError,
    DependencyUnavailable,
)
from deeplens_streams.web.responses import Handler, as_ours, error_answer, is_gone, request_id

log = structlog.get_logger()


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let no exception reach a client: each is an object with a code and a sentence."""
    with structlog.contextvars.bound_contextvars(request_id=request_id(request)):
        try:
            return await handler(request)
        except DeepLensError as error:
            # A dependency that is away is its breaker's to tell, once.
            is_ours = error.http_status >= 500  # noqa: PLR2004 -- the server's share of the codes
            if is_ours and not isinstance(error, DependencyUnavailable):
                log.warning("request failed", path=request.path[:200], code=error.code)
            return error_answer(request, error)
        except web.HTTPException as error:
            if error.status < 400:  # noqa: PLR2004 -- a redirect is no error
                raise
            answer = error_answer(request, as_ours(error))
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
            return answer
        except Exception as error:
            if isinstance(error, ConnectionError) and is_gone(request):
                log.debug("the client went away", path=request.path[:200])
                return error_answer(request, BadRequest("The connection ended before the request."))
            log.exception("request failed", method=request.method, path=request.path[:200])
            return error_answer(
                request,
                DeepLensError(
                    "Something went wrong here; the log says more under request "
                    f"{request_id(request)}."
                ),
            )
