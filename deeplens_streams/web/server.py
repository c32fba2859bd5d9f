"""aiohttp's server, whose own refusals are answered as the application's are.

Nor does it wait for ever for clients that take nothing of what they are sent.
"""

import asyncio
import socket
from typing import Final, cast

from aiohttp import web

from deeplens_streams.errors import BadRequest, DeepLensError
from deeplens_streams.web.responses import error_answer, put_headers

#: Seconds in which a client takes some of what it is sent, if it is slow; else it is hung up on.
STALLED_S: Final = 30.0


class _Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have the kernel, which alone sees what is taken, end the connection when it stalls.

        So it is for all that is sent: answers of any kind, websockets, and what is still unsent
        when the connection is closed. Only Linux can do it.
        """
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            connection: socket.socket = transport.get_extra_info("socket")
            timeout_ms = int(STALLED_S * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what came to no handler: it is no HTTP, or more of it than is read."""
        super().handle_error(request, status, exc, message)  # logs it
        is_clients = status < 500  # noqa: PLR2004 -- the server's share of the codes
        error = BadRequest("This is no HTTP request, or its headers are too long or too many.")
        asked = cast(web.Request, request)
        answer = error_answer(asked, error if is_clients else DeepLensError())
        put_headers(asked, answer)
        answer.force_close()
        return answer


class _Server(web.Server):
    """What makes a connection of each that is accepted."""

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application with such connections; aiohttp has no setting for them."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001 -- a server is given them, and says them nowhere else
        )
