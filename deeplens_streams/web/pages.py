"""The pages and what they load: files of this package, read once."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from aiohttp import web

from deeplens_streams.errors import NotFound
from deeplens_streams.web import tables

_TYPES: Final = {
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
        if suffix in _TYPES:
            body = entry.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[entry.name] = Asset(body, _TYPES[suffix], etag)
    return found


async def index(request: web.Request) -> web.Response:
    return _answer(request, "index.html")


async def tables_page(request: web.Request) -> web.Response:
    """Answer the page, or the rows themselves to a client that asks for JSON."""
    accepted = request.headers.get("Accept", "")
    if "application/json" in accepted and "text/html" not in accepted:
        return await tables.page(request)
    return _answer(request, "tables.html")


async def asset(request: web.Request) -> web.Response:
    return _answer(request, request.match_info["name"])


def _answer(request: web.Request, name: str) -> web.Response:
    found = assets().get(name)
    if found is None:
        raise NotFound
    # Checked at every load: an update must not meet yesterday's script.
    headers = {"ETag": found.etag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    if request.headers.get("If-None-Match") == found.etag:
        return web.Response(status=304, headers=headers)
    return web.Response(
        body=found.body, content_type=found.content_type, charset="utf-8", headers=headers
    )
