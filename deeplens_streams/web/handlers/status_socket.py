"""``WS /hub/processing-status``: the status object at once, at every change, and no more.

Changes come from the feed, which every api process reads for itself, so any worker can serve
any image; the row is read again every few seconds, so that a lost message hangs nobody.
"""

import asyncio
import contextlib
from functools import partial
from typing import Final

import orjson
import structlog
from aiohttp import WSCloseCode, web

from deeplens_streams.concurrency import ConcurrencyLimit
from deeplens_streams.config import Settings
from deeplens_streams.errors import (
    BadRequest,
    DeepLensError,
    DependencyUnavailable,
    ImageNotFound,
    InvalidKey,
    MissingScope,
    TenantDeleting,
    TenantSuspended,
    TooManyFailures,
    TooManyRequests,
    WrongTenant,
)
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.web.app_keys import CONTEXT, ESTIMATES, FOLLOWERS, SOCKETS
from deeplens_streams.web.lookup import find_row
from deeplens_streams.web.metrics import SOCKETS_OPEN
from deeplens_streams.web.middleware.auth import AUTHENTICATOR, SOCKET_PROTOCOL, tenant_bound
from deeplens_streams.web.status_object import status_object
from models.status import FINAL_STATES, ImageRow, ImageState, rank_of
from models.tenants import Scope

log = structlog.get_logger()

CLOSE_MALFORMED_ID: Final = 4400
CLOSE_UNKNOWN_ID: Final = 4404
CLOSE_BAD_KEY: Final = 4401
CLOSE_FORBIDDEN: Final = 4403
#: Answered to a browser that offers it, because it sends its key as another one.
_PROTOCOLS: Final = (SOCKET_PROTOCOL,)

_HEARTBEAT_S = 20.0
#: How often the row is read again while nothing comes from the feed.
_POLL_S = 2.0
#: How often it is tried again while its owner or the storage is away.
_RETRY_S = 0.5
#: What a client has to take one message.
_SEND_S = 10.0
#: Longest message that a client may send; there is nothing to say.
_MAX_INCOMING = 1024


async def processing_status(request: web.Request) -> web.WebSocketResponse:
    # Refused by an answer, not by a close code: no socket is opened for it.
    with request.app[FOLLOWERS].acquire():
        return await _follow(request)


def turns(settings: Settings) -> ConcurrencyLimit:
    refusal = (
        "Too many clients follow a status at this server; ask for the status, or try again in a "
        "few seconds."
    )
    return ConcurrencyLimit(settings.max_websockets, partial(TooManyRequests, refusal))


async def _follow(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(
        heartbeat=_HEARTBEAT_S, max_msg_size=_MAX_INCOMING, protocols=_PROTOCOLS
    )
    await socket.prepare(request)
    sockets = request.app[SOCKETS]
    sockets.add(socket)
    SOCKETS_OPEN.inc()
    try:
        code, reason = await _serve(request, socket)
        await _close(socket, code, reason)
    finally:
        SOCKETS_OPEN.dec()
        sockets.discard(socket)
    return socket


async def refuse(request: web.Request, error: DeepLensError) -> web.WebSocketResponse:
    """Say by a close code what an answer to a websocket cannot: browsers do not show those."""
    socket = web.WebSocketResponse(protocols=_PROTOCOLS)
    await socket.prepare(request)
    if isinstance(error, DependencyUnavailable):
        await _close(socket, WSCloseCode.TRY_AGAIN_LATER, error.message)
    else:
        await _close(socket, _code(error), error.message)
    return socket


_FORBIDS = (MissingScope, WrongTenant, TenantSuspended, TenantDeleting)


def _code(error: DeepLensError) -> int:
    if isinstance(error, BadRequest):
        return CLOSE_MALFORMED_ID
    if isinstance(error, ImageNotFound):
        return CLOSE_UNKNOWN_ID
    return CLOSE_FORBIDDEN if isinstance(error, _FORBIDS) else CLOSE_BAD_KEY


async def close_all(app: web.Application) -> None:
    """Tell every client that this server goes; they may come back to another."""
    sockets = app[SOCKETS]
    await asyncio.gather(*(_close(each, WSCloseCode.GOING_AWAY, "") for each in list(sockets)))


async def _close(socket: web.WebSocketResponse, code: int, reason: str) -> None:
    # A control frame holds 125 bytes, two of them for the code.
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(_SEND_S):
            await socket.close(code=code, message=reason.encode()[:120])


async def _serve(request: web.Request, socket: web.WebSocketResponse) -> tuple[int, str]:
    """Follow the image until its end or the client's; return how to close."""
    try:
        image_id = check_image_id(request.query.get("imageId"))
        tenant = tenant_bound(request, request.query.get("tenantId"))
    except (BadRequest, WrongTenant) as error:
        return _code(error), error.message
    following = asyncio.create_task(_Follower(request, socket, tenant).follow(image_id))
    hanging_up = asyncio.create_task(_until_hung_up(socket))
    try:
        await asyncio.wait({following, hanging_up}, return_when=asyncio.FIRST_COMPLETED)
        if not following.done():
            return WSCloseCode.OK, ""
        following.result()
    except (ImageNotFound, InvalidKey, TooManyFailures, *_FORBIDS) as error:
        return _code(error), error.message
    except (ConnectionError, TimeoutError):
        return WSCloseCode.GOING_AWAY, ""  # the client went, or takes nothing any more
    except Exception:
        log.exception("following a status failed", image_id=image_id)
        return WSCloseCode.INTERNAL_ERROR, "Something went wrong here; see the log."
    else:
        return WSCloseCode.OK, ""
    finally:
        following.cancel()
        hanging_up.cancel()
        await asyncio.gather(following, hanging_up, return_exceptions=True)


async def _until_hung_up(socket: web.WebSocketResponse) -> None:
    async for _ in socket:  # pings are answered inside; whatever else comes is dropped
        pass


class _Follower:
    """One client's view of one image, which only ever goes forward."""

    def __init__(
        self, request: web.Request, socket: web.WebSocketResponse, tenant: str | None
    ) -> None:
        app = request.app
        self._request, self._tenant = request, tenant
        self._authenticator = app[AUTHENTICATOR]
        self._context = app[CONTEXT]
        self._estimates = app[ESTIMATES]
        self._socket = socket
        self._seen: tuple[object, ...] = ()
        self._steps: object = None
        self._is_over = False

    async def follow(self, image_id: str) -> None:
        """Send every change until the image's end.

        Raises
        ------
        ImageNotFound
            There is none, or not of this client any more: a stranger's row was put right.
        InvalidKey, TooManyFailures, MissingScope, TenantSuspended, TenantDeleting
            The client may not see it any more, as `Authenticator.caller` and `check_owner` say.
        """
        # Subscribed before the first look: what changes between the two is not missed.
        async with self._context.feed.subscribe(image_id) as changes:
            row = await self._look(image_id)
            if row is None:
                raise ImageNotFound
            tenant = row.tenantId
            await self._show(row)
            while not self._is_over:
                try:
                    row = await asyncio.wait_for(changes.get(), _POLL_S)
                except TimeoutError:
                    row = await self._look(image_id) or row
                    tenant = row.tenantId
                if row.tenantId == tenant:  # else a stranger wrote to the topic
                    await self._show(row)

    async def _look(self, image_id: str) -> ImageRow | None:
        """Read the row, waiting while its owner or the storage is away; raises as `follow`."""
        while True:
            try:
                row = await find_row(self._context, image_id)
                if row is not None:
                    if self._tenant not in (None, row.tenantId):
                        raise ImageNotFound
                    self._check(row)
                return row
            except DependencyUnavailable:
                await asyncio.sleep(_RETRY_S)

    def _check(self, row: ImageRow) -> None:
        """Raise, as `follow`, if what let the client in has ended since it came."""
        self._authenticator.caller(self._request, Scope.READ)
        self._authenticator.check_owner(row.tenantId)

    async def _show(self, row: ImageRow) -> None:
        """Send the row unless the client has seen as much or more.

        What a picture waits for is not in its row.
        """
        self._check(row)
        version = _version(row)
        if version < self._seen:
            return
        shown = status_object(row, self._estimates, self._context.feed.outages)
        steps = [*shown["processingSteps"], *shown["otherSteps"]]
        if version == self._seen and steps == self._steps:
            return
        self._seen, self._steps, self._is_over = version, steps, row.status in FINAL_STATES
        message = orjson.dumps(shown).decode()
        async with asyncio.timeout(_SEND_S):
            await self._socket.send_str(message)


def _version(row: ImageRow) -> tuple[object, ...]:
    """Return what grows with every change of a row."""
    current = [step for step in row.steps if step.generation == row.generation]
    return (
        row.generation,
        row.status in FINAL_STATES,
        row.status != ImageState.UPLOADED,
        sum(rank_of(step.status) for step in current),
        row.lastUpdated,
    )
