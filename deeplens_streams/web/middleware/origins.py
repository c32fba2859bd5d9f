"""Which pages may have a browser call the interface: this system's own, and others by setting.

Nothing here is authenticated by cookies, so credentials are never allowed.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from deeplens_streams.config import Settings
from deeplens_streams.errors import HostRefused, OriginRefused

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
#: What changes nothing, and what a page cannot read of another origin.
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

ORIGINS: web.AppKey["Origins"] = web.AppKey("deeplens_origins")


class Origins:
    """Keeps pages of strangers from what their visitor's browser can reach.

    That is needed where keys are off: there, to reach the port is to be let in. A key is in a
    header that no browser adds by itself, so where keys are on, a page can do nothing that its
    author could not do without the visitor.

    Parameters
    ----------
    keys_on : whether there is nothing to be kept from anybody.
    """

    def __init__(self, settings: Settings, *, keys_on: bool) -> None:
        self._keys_on = keys_on
        self._allowed = frozenset(settings.cors_origins)
        self._names = {settings.web_host.lower(), urlsplit(settings.canonical_url).hostname}
        # Whoever listens everywhere without keys has meant it, and its names nobody knows.
        bound = _address(settings.web_host)
        self._any_host = settings.insecure and bound is not None and bound.is_unspecified

    def check(self, request: web.Request, *, any_host: bool) -> None:
        """Raise if a page of a stranger may be what asks.

        Parameters
        ----------
        any_host : whether the address is for probes, which call a process by any name.

        Raises
        ------
        HostRefused
            The request is for a host of another name: one that a stranger's name server says is
            here, and then his page is of the same origin as all that it asks for.
        OriginRefused
            A page of another origin would change something, or open a websocket, which browsers
            let every page read.
        """
        if self._keys_on:
            return
        if not (any_host or self._any_host or self._is_own(request.headers.get("Host"))):
            raise HostRefused
        acts = request.method not in _SAFE or "Upgrade" in request.headers
        if acts and self._is_foreign(request):
            raise OriginRefused

    def _is_own(self, host: str | None) -> bool:
        if host is None:
            return True  # no browser leaves it out
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        address = _address(name)
        is_loopback = name == "localhost" or (address is not None and address.is_loopback)
        return is_loopback or name in self._names

    def _is_foreign(self, request: web.Request) -> bool:
        """Tell whether a page of another origin asks; programs say nothing of an origin."""
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
        if origin is None:
            return site in {"cross-site", "same-site"}
        if origin in self._allowed or site == "same-origin":
            return False
        host = origin.partition("://")[2]
        return not host or host != request.headers.get("Host", "").lower()


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


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
