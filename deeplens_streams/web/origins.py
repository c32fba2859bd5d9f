"""Which pages of other origins may call the interface: CORS, by setting; none by default.

Nothing here is authenticated by cookies, so credentials are never allowed.
"""

from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from deeplens_streams.config import Settings

#: What pages may call; the rest is for workers and people.
_PREFIX: Final = "/api/"
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, If-None-Match, Range, X-API-Key, X-Request-ID"
    ),
    "Access-Control-Max-Age": "600",
}
_EXPOSED: Final = (
    "Accept-Ranges, Content-Disposition, Content-Range, ETag, Retry-After, X-Request-ID"
)


def preflights(settings: Settings) -> Middleware:
    """Return what answers a browser that asks whether a page may send its request."""
    allowed = frozenset(settings.cors_origins)

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if asks and _is_allowed(request, allowed):
            return web.Response(status=204, headers=_PREFLIGHT)
        return await handler(request)

    return answer


def allow(web_app: web.Application, settings: Settings) -> None:
    """Mark every answer to a page that may read it."""
    allowed = frozenset(settings.cors_origins)

    async def mark(request: web.Request, response: web.StreamResponse) -> None:
        if not request.path.startswith(_PREFIX):
            return
        # A cache must not give one origin's answer to another.
        response.headers.add("Vary", "Origin")
        if _is_allowed(request, allowed):
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED

    if allowed:
        web_app.on_response_prepare.append(mark)


def _is_allowed(request: web.Request, allowed: frozenset[str]) -> bool:
    return request.path.startswith(_PREFIX) and request.headers.get("Origin") in allowed
