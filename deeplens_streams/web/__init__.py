"""The HTTP side: every route in one list, put on an aiohttp application that others built.

It knows nothing of Faust; the stream side comes in through `WebContext`.
"""

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from deeplens_streams.client import models
from deeplens_streams.config import Settings
from deeplens_streams.ingest.acceptance import UploadAcceptance
from deeplens_streams.ingest.admission import AdmissionControl
from deeplens_streams.ingest.body_rate import BodyRateLimit
from deeplens_streams.ingest.fetcher import ImageFetcher
from deeplens_streams.ingest.spool import Spool
from deeplens_streams.interactive_queries.sources import RowSource, TableSource
from deeplens_streams.status.estimates import Estimates
from deeplens_streams.tenancy.api_keys import operator_key
from deeplens_streams.tenancy.registry import Registry
from deeplens_streams.web.app_keys import (
    ACCEPTANCE,
    ADMISSION,
    BODY_RATE,
    CONTEXT,
    DOWNLOADS,
    ESTIMATES,
    FETCHER,
    FOLLOWERS,
    HEALTH,
    QUERIES,
    QUOTAS,
    READINESS,
    SEARCHES,
    SOCKETS,
    SPOOL,
)
from deeplens_streams.web.context import Check, HealthContext, StatusFeed, WebContext
from deeplens_streams.web.handlers import (
    admin_log,
    api_keys,
    audit,
    collections,
    content,
    dead_letters,
    deletion,
    documents,
    health,
    images,
    internal,
    pages,
    retry,
    search,
    status,
    status_socket,
    tables,
    tenants,
    trash,
    upload,
)
from deeplens_streams.web.handlers.documents import DOCUMENTS, Documents, as_asset
from deeplens_streams.web.middleware import origins
from deeplens_streams.web.middleware.admin_log import write_down
from deeplens_streams.web.middleware.auth import (
    AUTHENTICATOR,
    DECLARED,
    INTERNAL,
    Authenticator,
    Route,
    authenticate,
)
from deeplens_streams.web.middleware.errors import errors_as_json
from deeplens_streams.web.middleware.origins import ORIGINS, Origins
from deeplens_streams.web.openapi import document
from deeplens_streams.web.openapi.asyncapi import asyncapi_document
from deeplens_streams.web.readiness import Readiness
from deeplens_streams.web.responses import Handler, add_headers
from deeplens_streams.web.server import Runner
from models.tenants import Scope

__all__ = [
    "Check",
    "HealthContext",
    "RowSource",
    "Runner",
    "StatusFeed",
    "TableSource",
    "WebContext",
    "application_options",
    "register",
    "register_health",
    "server_options",
    "upload_acceptance",
]

#: Bytes of a body that is read at once; uploads are streamed and counted for themselves.
_MAX_BODY_BYTES = 262_144
#: Bytes of a request's line, and of each of its headers; and how many headers there may be.
_MAX_LINE_BYTES, _MAX_HEADERS = 8190, 100
#: Seconds for which the rest of a refused body is read, so that its client sees the answer.
_LINGER_S = 5.0


_TENANTS = "/api/v1/admin/tenants"
_TENANT = f"{_TENANTS}/{{tenant_id}}"
_TRASH = "/api/v1/admin/trash"
_COLLECTIONS = "/api/v1/admin/collections"
_COLLECTION = f"{_COLLECTIONS}/{{tenant_id}}/{{model_name}}"
_LETTERS = "/api/v1/dead-letters"
_LETTER = f"{_LETTERS}/{{letter_id}}"


def _key_routes(path: str, handlers: Sequence[Handler]) -> tuple[Route, ...]:
    listing, create, revoke, rotate = handlers
    return (
        Route("GET", path, listing, models.Keys, Scope.ADMIN),
        Route("POST", path, create, models.KeyAnswer, Scope.ADMIN),
        Route("DELETE", f"{path}/{{key_id}}", revoke, models.KeyAnswer, Scope.ADMIN),
        Route("POST", f"{path}/{{key_id}}/rotate", rotate, models.KeyAnswer, Scope.ADMIN),
    )


#: What every worker answers.
HEALTH_ROUTES = (
    Route("GET", "/health/live", health.live, models.Reply, None, any_host=True),
    Route("GET", "/health/ready", health.ready, models.Readiness, None, any_host=True),
    Route("GET", "/metrics", health.metrics, models.Reply, Scope.ADMIN, any_host=True),
)
#: In the order of matching: a fixed address stands before one with a variable.
ROUTES = (
    Route("POST", "/api/v1/images/upload", upload.upload, models.Upload, Scope.UPLOAD),
    Route("POST", "/api/v1/images/search", search.search, models.SearchResults, Scope.SEARCH),
    Route("GET", "/api/v1/images", images.listing, models.ImagePage, Scope.READ),
    Route("GET", "/api/v1/images/{image_id}", images.metadata, models.ImageAnswer, Scope.READ),
    Route("DELETE", "/api/v1/images/{image_id}", deletion.delete, models.Deletion, Scope.DELETE),
    Route("GET", "/api/v1/images/{image_id}/status", status.status, models.Status, Scope.READ),
    Route("GET", "/api/v1/images/{image_id}/content", content.content, models.Reply, Scope.READ),
    Route(
        "GET", "/api/v1/images/{image_id}/thumbnail", content.thumbnail, models.Reply, Scope.READ
    ),
    Route("POST", "/api/v1/images/{image_id}/retry", retry.retry, models.Retried, Scope.UPLOAD),
    Route("GET", "/api/v1/usage", tenants.own_usage, models.TenantUsage, Scope.READ),
    Route("POST", _TENANTS, tenants.create, models.TenantAnswer, Scope.ADMIN),
    Route("GET", _TENANTS, tenants.listing, models.TenantPage, Scope.ADMIN),
    Route("GET", _TENANT, tenants.show, models.TenantAnswer, Scope.ADMIN),
    Route("PATCH", _TENANT, tenants.change, models.TenantAnswer, Scope.ADMIN),
    Route("POST", f"{_TENANT}/suspend", tenants.suspend, models.TenantAnswer, Scope.ADMIN),
    Route("POST", f"{_TENANT}/resume", tenants.resume, models.TenantAnswer, Scope.ADMIN),
    Route("POST", f"{_TENANT}/check", tenants.check, models.TenantAnswer, Scope.ADMIN),
    Route("GET", f"{_TENANT}/usage", tenants.usage, models.TenantUsage, Scope.ADMIN),
    *_key_routes(f"{_TENANT}/keys", api_keys.OF_TENANTS),
    *_key_routes("/api/v1/admin/keys", api_keys.OF_OPERATORS),
    Route("GET", "/api/v1/admin/log", admin_log.listing, models.AdminActions, Scope.ADMIN),
    Route("DELETE", _TENANT, deletion.delete_tenant, models.TenantPurge, Scope.ADMIN),
    Route("GET", f"{_TENANT}/purge", deletion.tenant_purge, models.TenantPurge, Scope.ADMIN),
    Route("POST", "/api/v1/admin/audit", audit.audit, models.Reply, Scope.ADMIN),
    Route("GET", _TRASH, trash.listing, models.TrashPage, Scope.ADMIN),
    Route("DELETE", _TRASH, trash.empty, models.TrashRemoved, Scope.ADMIN),
    Route(
        *("POST", f"{_TRASH}/{{trash_id}}/restore", trash.bring_back, models.TrashAnswer),
        Scope.ADMIN,
    ),
    Route("DELETE", f"{_TRASH}/{{trash_id}}", trash.remove, models.TrashAnswer, Scope.ADMIN),
    Route("POST", _COLLECTIONS, collections.create, models.CollectionMade, Scope.ADMIN),
    Route(
        *("GET", f"{_COLLECTIONS}/{{tenant_id}}", collections.listing, models.Collections),
        Scope.ADMIN,
    ),
    Route("GET", _COLLECTION, collections.figures, models.CollectionFigures, Scope.ADMIN),
    Route("DELETE", _COLLECTION, collections.delete, models.Reply, Scope.ADMIN),
    Route(
        *("POST", f"{_COLLECTION}/optimize", collections.optimize, models.Reply),
        Scope.ADMIN,
    ),
    Route("GET", _LETTERS, dead_letters.listing, models.LetterPage, Scope.READ),
    Route("POST", f"{_LETTERS}/retry", dead_letters.retry_many, models.LettersChanged, Scope.ADMIN),
    Route(
        *("POST", f"{_LETTERS}/discard", dead_letters.discard_many, models.LettersChanged),
        Scope.ADMIN,
    ),
    Route("GET", _LETTER, dead_letters.inspect, models.WholeLetter, Scope.READ),
    Route("POST", f"{_LETTER}/retry", dead_letters.retry, models.ChangedLetter, Scope.ADMIN),
    Route("POST", f"{_LETTER}/discard", dead_letters.discard, models.ChangedLetter, Scope.ADMIN),
    Route(
        *("GET", "/hub/processing-status", status_socket.processing_status, models.Status),
        *(Scope.READ, status_socket.refuse),
    ),
    *HEALTH_ROUTES,
    Route("POST", "/internal/rows", internal.rows, models.HeldRows, INTERNAL),
    Route("GET", "/internal/tables/{name}", internal.share, models.HeldShareAnswer, INTERNAL),
    Route(
        *("GET", "/internal/tables/{name}/rows/{key}", internal.entry, models.HeldEntry),
        INTERNAL,
    ),
    Route(*("GET", "/tables", tables.listing, models.Tables, Scope.ADMIN, pages.tables_refused)),
    Route(
        *("GET", "/tables/{name}", tables.page, models.TablePage, Scope.ADMIN),
        pages.tables_refused,
    ),
    Route(
        *("GET", "/tables/{name}/{key}", tables.row, models.TableRow, Scope.ADMIN),
        pages.tables_refused,
    ),
    Route("GET", "/openapi.json", documents.openapi, models.Reply, None),
    Route("GET", "/asyncapi.json", documents.asyncapi, models.Reply, None),
    Route("GET", "/docs", pages.api_page, models.Reply, None),
    Route("GET", "/static/{name}", pages.asset, models.Reply, None),
    Route("GET", "/", pages.index, models.Reply, None),
)


def application_options(settings: Settings) -> dict[str, Any]:
    """Return what the aiohttp Application is to be constructed with."""
    return {
        "middlewares": [
            errors_as_json,
            origins.preflights(settings),
            authenticate,
            write_down,
        ],
        "client_max_size": _MAX_BODY_BYTES,
    }


def server_options(settings: Settings) -> dict[str, Any]:
    """Return what the aiohttp server is to be constructed with: limits before any view."""
    return {
        # It bounds headers that drip in, too: aiohttp stops this clock at a whole request.
        "keepalive_timeout": settings.idle_timeout_s,
        "max_line_size": _MAX_LINE_BYTES,
        "max_field_size": _MAX_LINE_BYTES,
        "max_headers": _MAX_HEADERS,
        "lingering_time": _LINGER_S,
    }


def register(web_app: web.Application, context: WebContext) -> None:
    """Add every route of the api role, before the application starts."""
    settings, estimates = context.services.settings, Estimates()
    spool, fetcher = Spool(settings.spool_path), ImageFetcher(settings)
    web_app[CONTEXT] = context
    web_app[SPOOL] = spool
    web_app[ESTIMATES] = estimates
    web_app[ADMISSION] = AdmissionControl(settings, context.backlog)
    acceptance = web_app[ACCEPTANCE] = upload_acceptance(context)
    web_app[QUOTAS] = context.quotas
    web_app[BODY_RATE] = BodyRateLimit(settings)
    web_app[FETCHER] = fetcher
    web_app[SOCKETS] = set()
    web_app[FOLLOWERS] = status_socket.turns(settings)
    web_app[DOWNLOADS] = content.turns(settings)
    web_app[QUERIES] = search.turns(settings)
    web_app[SEARCHES] = search.search_slots()
    web_app[DOCUMENTS] = Documents(
        openapi=as_asset(document(ROUTES)),
        asyncapi=as_asset(asyncapi_document(settings)),
    )
    context.feed.on_change(estimates.watch)

    async def start(_app: web.Application) -> None:
        await spool.prepare()

    async def stop(_app: web.Application) -> None:
        await acceptance.close()
        fetcher.close()
        spool.close()

    web_app.on_startup.append(start)
    web_app.on_shutdown.append(status_socket.close_all)
    web_app.on_cleanup.append(stop)
    _add(web_app, ROUTES, context, context.registry)
    origins.allow(web_app, settings)


def upload_acceptance(context: WebContext) -> UploadAcceptance:
    return UploadAcceptance(
        context.services,
        rows=context.rows,
        changes=context.feed,
        publish=context.publish,
        registry=context.registry,
        quotas=context.quotas,
    )


def register_health(web_app: web.Application, context: HealthContext) -> None:
    """Add what a worker without the api role answers."""
    _add(web_app, HEALTH_ROUTES, context, None)


def _add(
    web_app: web.Application,
    routes: Sequence[Route],
    context: HealthContext,
    registry: Registry | None,
) -> None:
    settings = context.services.settings
    authenticator = Authenticator(operator_key(settings), registry)
    web_app[HEALTH] = context
    web_app[READINESS] = Readiness(context)
    web_app[AUTHENTICATOR] = authenticator
    web_app[ORIGINS] = Origins(settings, keys_on=authenticator.keys_on)
    web_app[DECLARED] = {}
    web_app.on_response_prepare.append(add_headers)
    for route in routes:
        if route.method == "GET":
            added = web_app.router.add_get(route.path, route.handler)  # and HEAD
        else:
            added = web_app.router.add_route(route.method, route.path, route.handler)
        assert added.resource is not None, "only routes of the router itself have none"
        web_app[DECLARED][(added.resource.canonical, route.method)] = route
