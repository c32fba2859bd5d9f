"""Answers in JSON, and errors as the endpoint's own object."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from deeplens_streams.client.models import Reply
from deeplens_streams.errors import (
    BadRequest,
    DeepLensError,
    NotFound,
    RowMoving,
    TooLarge,
)
from models.events import new_event_id

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: The endpoint's fields as an error answers them: null or empty.
BLANK: Final[web.RequestKey[Mapping[str, Any]]] = web.RequestKey("deeplens_blank", dict)
_REQUEST_ID: Final[web.RequestKey[str]] = web.RequestKey("deeplens_request_id", str)

_RETRY_AFTER_S = 5
_RETRY_MOVING_S = 1


def success(kind: type[Reply]) -> dict[str, Any]:
    """Return an endpoint's own object as a success begins it: what it is about goes over that."""
    return {**kind.blank(), "success": True}


def json_answer(
    body: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer `body` as UTF-8 JSON."""
    return web.Response(
        body=orjson.dumps(body), status=status, headers=headers, content_type="application/json"
    )


def error_answer(request: web.Request, error: DeepLensError) -> web.Response:
    """Answer `error` as the endpoint's own object."""
    body = {
        **request.get(BLANK, {}),
        "success": False,
        "message": error.message,
        "errorCode": error.code,
    }
    headers = {}
    if error.retryable:
        usual = _RETRY_MOVING_S if isinstance(error, RowMoving) else _RETRY_AFTER_S
        wait = usual if error.retry_after is None else error.retry_after
        headers["Retry-After"] = str(wait)
    if error.http_status == 401:  # noqa: PLR2004 -- a code, said once
        headers["WWW-Authenticate"] = "Bearer"
    return json_answer(body, status=error.http_status, headers=headers)


def request_id(request: web.Request) -> str:
    """Return the ID that names this request in its answer and in the log."""
    found = request.get(_REQUEST_ID)
    if found is None:
        found = request[_REQUEST_ID] = _given_id(request) or new_event_id().replace("-", "")
    return found


def _given_id(request: web.Request) -> str | None:
    """Take the client's own ID if it is plain enough for a header and a log."""
    given = request.headers.get("X-Request-ID", "")
    plain = given.isascii() and given.replace("-", "").replace("_", "").isalnum()
    return given if plain and len(given) <= 64 else None  # noqa: PLR2004 -- a length, said once


class _MethodNotAllowed(DeepLensError):
    """This address takes another method; see the Allow header."""

    code = "METHOD_NOT_ALLOWED"
    http_status = 405


class _NoSuchRoute(NotFound):
    """There is nothing at this address."""


def as_ours(error: web.HTTPException) -> DeepLensError:
    """Translate aiohttp's own refusals."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        return _MethodNotAllowed()
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge("The request's body is larger than this address takes.")
    if isinstance(error, web.HTTPNotFound):
        return _NoSuchRoute()
    return BadRequest("The request cannot be understood.")


def is_gone(request: web.Request) -> bool:
    """Tell whether the client's connection has ended, so that nobody reads an answer."""
    return request.transport is None or request.transport.is_closing()


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put on every answer of the application what `put_headers` does."""
    put_headers(request, response)


def put_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put on an answer what keeps a browser from doing more than it should."""
    headers = response.headers
    headers["X-Request-ID"] = request_id(request)
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
