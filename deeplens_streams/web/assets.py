"""The pages' files, read once, and how they and other fixed bytes are answered."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from aiohttp import web

from deeplens_streams.errors import NotFound

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


def is_for_people(request: web.Request) -> bool:
    """Tell whether a browser asks for a page, at an address that answers JSON, too."""
    return "text/html" in request.headers.get("Accept", "")


def static_file(request: web.Request, name: str) -> web.Response:
    found = assets().get(name)
    if found is None:
        raise NotFound
    return asset_answer(request, found)


def tables_page(request: web.Request) -> web.Response:
    """Answer the page that shows every table, whichever of its addresses was asked for."""
    return static_file(request, "tables.html")


def asset_answer(request: web.Request, found: Asset) -> web.Response:
    # Checked at every load: an update must not meet yesterday's script.
    headers = {"ETag": found.etag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    if request.headers.get("If-None-Match") == found.etag:
        return web.Response(status=304, headers=headers)
    return web.Response(
        body=found.body, content_type=found.content_type, charset="utf-8", headers=headers
    )
