"""The pages and what they load: files of this package, read once."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from aiohttp import web

from deeplens_streams.errors import DeepLensError, NotFound

TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

#: Nothing from elsewhere, nothing inline; `blob:` shows a picture before it is uploaded.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    content_type: str
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """Return every file of ``static`` by its name."""
    found = {}
    for entry in files("deeplens_streams.web").joinpath("static").iterdir():
        suffix = "." + entry.name.rpartition(".")[2]
        if suffix in TYPES:
            found[entry.name] = asset_of(entry.read_bytes(), TYPES[suffix])
    return found


def asset_of(body: bytes, content_type: str) -> Asset:
    return Asset(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


async def index(request: web.Request) -> web.Response:
    return _answer(request, "index.html")


def is_for_people(request: web.Request) -> bool:
    """Tell whether a browser asks for a page, at an address that answers JSON, too."""
    return "text/html" in request.headers.get("Accept", "")


def tables_page(request: web.Request) -> web.Response:
    return _answer(request, "tables.html")


async def tables_refused(request: web.Request, error: DeepLensError) -> web.Response:
    """Answer the page to a browser without a key: it is empty, and asks for one."""
    if not is_for_people(request):
        raise error
    return tables_page(request)


async def api_page(request: web.Request) -> web.Response:
    return _answer(request, "api.html")


async def asset(request: web.Request) -> web.Response:
    return _answer(request, request.match_info["name"])


def _answer(request: web.Request, name: str) -> web.Response:
    found = assets().get(name)
    if found is None:
        raise NotFound
    return asset_answer(request, found)


def asset_answer(request: web.Request, found: Asset) -> web.Response:
    # Checked at every load: an update must not meet yesterday's script.
    headers = {"ETag": found.etag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    if request.headers.get("If-None-Match") == found.etag:
        return web.Response(status=304, headers=headers)
    return web.Response(
        body=found.body, content_type=found.content_type, charset="utf-8", headers=headers
    )
