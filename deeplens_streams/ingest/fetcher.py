"""A picture by its address: fetched as carefully as if whoever sent the address owned the server.

Names that stand for our own network, redirects into it, bodies without end and servers that drip
are refused. No cookie, no proxy of ours and no credential takes part.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import unquote

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from deeplens_streams import __version__
from deeplens_streams.config import Settings
from deeplens_streams.errors import TooLarge, UploadTooSlow, UrlNotFetched, UrlRefused
from deeplens_streams.ingest.body_rate import BodyReader
from deeplens_streams.ingest.private_networks import PublicSockets
from deeplens_streams.ingest.spool import SpooledFile

MAX_REDIRECTS: Final = 3
_MAX_URL: Final = 2048
_CONNECT_S: Final = 5.0
#: Names that are looked up at once; the others wait, and nothing but them.
_LOOKUPS: Final = 4
_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: Compressed, a body could be any number of times what was received.
_HEADERS: Final = {
    "User-Agent": f"deeplens-streams/{__version__}",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
}


class ImageFetcher:
    """Fetches pictures for one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # A name server that is silent keeps a thread for long: the loop's own are storage's.
        self._threads = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="lookup")

    async def fetch(self, text: str, reader: BodyReader, into: SpooledFile) -> str:
        """Fetch the picture at the address `text` into `into`; return what its path calls it.

        Raises
        ------
        UrlRefused
            The address, or one that it redirects to, is none that may be fetched.
        UrlNotFetched
            There is no answer in time, or no picture in it.
        TooLarge
            It has more bytes than an upload may have; reading stops there.
        """
        settings, sockets = self._settings, PublicSockets()
        url = _checked(text, settings)
        try:
            async with (
                asyncio.timeout(settings.url_import_timeout_s),
                _session(sockets, _Resolver(self._threads)) as session,
            ):
                await _follow(session, url, settings, reader, into)
        except UploadTooSlow:
            raise UrlNotFetched("The server of the picture's address sends too slowly.") from None
        except TimeoutError:
            raise UrlNotFetched(
                "The server of the picture's address did not send it within "
                f"{settings.url_import_timeout_s:g} s."
            ) from None
        except aiohttp.InvalidURL:  # numbers that some systems take for an address
            raise UrlRefused("The picture's address is no URL.") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if sockets.refused:
                raise UrlRefused("The address belongs to a network that is not public.") from None
            raise UrlNotFetched from error
        if into.size == 0:
            raise UrlNotFetched("The answer from the picture's address is empty.")
        return unquote(url.raw_name)

    def close(self) -> None:
        """End the threads, and wait for none: what is looked up still serves nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Resolver(AbstractResolver):
    """Looks names up in threads of our own; aiohttp's takes the loop's."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        asked = (host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, socket.getaddrinfo, *asked
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Keep the threads, which are the fetcher's."""


def _checked(text: str, settings: Settings, base: URL | None = None) -> URL:
    """Return the address, seen from `base`, if it has the form of one that may be fetched."""
    try:
        url = URL(text) if base is None else base.join(URL(text))
    except ValueError:
        raise UrlRefused("The picture's address is no URL.") from None
    if len(text) > _MAX_URL or url.scheme not in {"http", "https"} or not url.host:
        raise UrlRefused(f"The address is http:// or https://, with up to {_MAX_URL} characters.")
    if url.user is not None or url.password is not None:
        raise UrlRefused("The address has a user's name in it; send one without.")
    if url.port not in settings.url_import_ports:
        raise UrlRefused(f"Pictures are not fetched from port {url.port}.")
    return url


def _session(sockets: PublicSockets, resolver: AbstractResolver) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=resolver,
            socket_factory=sockets,
            use_dns_cache=False,
            force_close=True,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        auto_decompress=False,
        trust_env=False,
    )


async def _follow(
    session: aiohttp.ClientSession,
    url: URL,
    settings: Settings,
    reader: BodyReader,
    into: SpooledFile,
) -> None:
    for _ in range(MAX_REDIRECTS + 1):
        async with session.get(url, allow_redirects=False) as response:
            if response.status not in _REDIRECTS:
                return await _read(response, settings.max_upload_bytes, reader, into)
            url = _checked(response.headers.get("Location", ""), settings, base=url)
    raise UrlRefused(f"The address redirects more than {MAX_REDIRECTS} times.")


async def _read(
    response: aiohttp.ClientResponse, max_bytes: int, reader: BodyReader, into: SpooledFile
) -> None:
    if response.status != _OK:
        raise UrlNotFetched(f"The picture's address answers with status {response.status}.")
    if (response.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    while chunk := await reader.next_chunk(response.content):
        into.take(chunk)
        if into.size > max_bytes:
            raise _too_large(max_bytes)
        await into.settle()


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The picture at that address has more than {max_bytes:,} bytes.")
