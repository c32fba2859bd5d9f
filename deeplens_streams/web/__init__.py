"""The HTTP side: every route in one list, put on an aiohttp application that others built.

It knows nothing of Faust; the stream side comes in through `WebContext`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from deeplens_streams.config import Settings
from deeplens_streams.web import (
    content,
    health,
    hub,
    images,
    internal,
    pages,
    search,
    status,
    tables,
    upload,
)
from deeplens_streams.web.answers import Handler, add_headers, errors_as_json, view
from deeplens_streams.web.context import Check, RowSource, StatusFeed, WebContext
from deeplens_streams.web.estimates import Estimates
from deeplens_streams.web.keys import CONTEXT, ESTIMATES, SEARCHES, SOCKETS, SPOOL
from deeplens_streams.web.spool import Spool

__all__ = [
    "Check",
    "RowSource",
    "StatusFeed",
    "WebContext",
    "application_options",
    "register",
]

#: Bytes of a body that is read at once; uploads are streamed and counted for themselves.
_MAX_BODY_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Route:
    """Attributes
    ----------
    blank : the endpoint's fields as its errors answer them.
    """

    method: str
    path: str
    handler: Handler
    blank: Mapping[str, Any]


#: In the order of matching: a fixed address stands before one with a variable.
ROUTES = (
    Route("POST", "/api/v1/images/upload", upload.upload, upload.BLANK),
    Route("POST", "/api/v1/images/search", search.search, search.BLANK),
    Route("GET", "/api/v1/images", images.listing, images.LIST_BLANK),
    Route("GET", "/api/v1/images/{image_id}", images.metadata, images.BLANK),
    Route("GET", "/api/v1/images/{image_id}/status", status.status, status.BLANK),
    Route("GET", "/api/v1/images/{image_id}/content", content.content, content.BLANK),
    Route("GET", "/api/v1/images/{image_id}/thumbnail", content.thumbnail, content.BLANK),
    Route("GET", "/hub/processing-status", hub.processing_status, status.BLANK),
    Route("GET", "/health/live", health.live, health.LIVE_BLANK),
    Route("GET", "/health/ready", health.ready, health.READY_BLANK),
    Route("GET", "/metrics", health.metrics, health.LIVE_BLANK),
    Route("GET", "/internal/rows/{image_id}", internal.row, internal.ROW_BLANK),
    Route("POST", "/internal/rows", internal.rows, internal.ROWS_BLANK),
    Route("GET", "/tables/image_status", tables.page, tables.PAGE_BLANK),
    Route("GET", "/tables/image_status/{image_id}", tables.row, tables.ROW_BLANK),
    Route("GET", "/tables", pages.tables_page, tables.PAGE_BLANK),
    Route("GET", "/static/{name}", pages.asset, content.BLANK),
    Route("GET", "/", pages.index, content.BLANK),
)


def application_options(settings: Settings) -> dict[str, Any]:
    """Return what the aiohttp Application is to be constructed with."""
    return {"middlewares": [errors_as_json], "client_max_size": _MAX_BODY_BYTES}


def register(web_app: web.Application, context: WebContext) -> None:
    """Add every route, before the application starts."""
    spool, estimates = Spool(context.services.settings.spool_path), Estimates()
    web_app[CONTEXT] = context
    web_app[SPOOL] = spool
    web_app[ESTIMATES] = estimates
    web_app[SOCKETS] = set()
    web_app[SEARCHES] = search.search_slots()
    context.feed.on_change(estimates.watch)

    async def start(_app: web.Application) -> None:
        await spool.prepare()

    async def stop(_app: web.Application) -> None:
        spool.close()

    web_app.on_startup.append(start)
    web_app.on_shutdown.append(hub.close_all)
    web_app.on_cleanup.append(stop)
    web_app.on_response_prepare.append(add_headers)
    for route in ROUTES:
        handler = view(route.handler, route.blank)
        if route.method == "GET":
            web_app.router.add_get(route.path, handler)  # and HEAD
        else:
            web_app.router.add_route(route.method, route.path, handler)
