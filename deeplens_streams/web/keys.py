"""Under which keys the aiohttp application and a request hold what the views need."""

import asyncio

from aiohttp import web

from deeplens_streams.web.context import WebContext
from deeplens_streams.web.estimates import Estimates
from deeplens_streams.web.spool import Spool

CONTEXT: web.AppKey[WebContext] = web.AppKey("deeplens_context", WebContext)
SPOOL: web.AppKey[Spool] = web.AppKey("deeplens_spool", Spool)
ESTIMATES: web.AppKey[Estimates] = web.AppKey("deeplens_estimates", Estimates)
#: Open websockets, closed when the server shuts down.
SOCKETS: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("deeplens_sockets", set)
#: Query pictures that may be in memory at once.
SEARCHES: web.AppKey[asyncio.Semaphore] = web.AppKey("deeplens_searches", asyncio.Semaphore)
