"""Under which keys the aiohttp application and a request hold what the views need."""

import asyncio

from aiohttp import web

from deeplens_streams.concurrency import ConcurrencyLimit
from deeplens_streams.ingest.acceptance import UploadAcceptance
from deeplens_streams.ingest.admission import AdmissionControl
from deeplens_streams.ingest.body_rate import BodyRateLimit
from deeplens_streams.ingest.fetcher import ImageFetcher
from deeplens_streams.ingest.spool import Spool
from deeplens_streams.status.estimates import Estimates
from deeplens_streams.tenancy.quotas import Quotas
from deeplens_streams.web.context import HealthContext, WebContext
from deeplens_streams.web.readiness import Readiness

CONTEXT: web.AppKey[WebContext] = web.AppKey("deeplens_context", WebContext)
HEALTH: web.AppKey[HealthContext] = web.AppKey("deeplens_health", HealthContext)
READINESS: web.AppKey[Readiness] = web.AppKey("deeplens_readiness", Readiness)
SPOOL: web.AppKey[Spool] = web.AppKey("deeplens_spool", Spool)
ADMISSION: web.AppKey[AdmissionControl] = web.AppKey("deeplens_admission", AdmissionControl)
QUOTAS: web.AppKey[Quotas] = web.AppKey("deeplens_quotas", Quotas)
ACCEPTANCE: web.AppKey[UploadAcceptance] = web.AppKey("deeplens_acceptance", UploadAcceptance)
ESTIMATES: web.AppKey[Estimates] = web.AppKey("deeplens_estimates", Estimates)
BODY_RATE: web.AppKey[BodyRateLimit] = web.AppKey("deeplens_body_rate", BodyRateLimit)
FETCHER: web.AppKey[ImageFetcher] = web.AppKey("deeplens_fetcher", ImageFetcher)
#: Open websockets, closed when the server shuts down.
SOCKETS: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("deeplens_sockets", set)
#: Clients with a websocket, whole pictures that are sent, searches by picture that wait.
FOLLOWERS: web.AppKey[ConcurrencyLimit] = web.AppKey("deeplens_followers", ConcurrencyLimit)
DOWNLOADS: web.AppKey[ConcurrencyLimit] = web.AppKey("deeplens_downloads", ConcurrencyLimit)
QUERIES: web.AppKey[ConcurrencyLimit] = web.AppKey("deeplens_queries", ConcurrencyLimit)
#: Query pictures that may be in memory at once.
SEARCHES: web.AppKey[asyncio.Semaphore] = web.AppKey("deeplens_searches", asyncio.Semaphore)
