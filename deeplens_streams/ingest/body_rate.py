"""How fast bodies have to come, and how many are taken at once: slow clients hold up nobody."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import StreamReader

from deeplens_streams.config import Settings
from deeplens_streams.errors import TooManyUploads, UploadTooSlow

#: Seconds of waiting for a client over which its rate is measured.
WINDOW_S: Final = 10.0
#: When no more can be taken, the slowest body makes room if it was waited for so long, in
#: seconds, and sent less than so many bytes in each of them.
GRACE_S: Final = 2.0
SLOW_RATE: Final = 65_536


class BodyReader:
    """One body: how long it was waited for, and what came.

    Only waiting for the client counts. A client is not slow because our disk is.
    """

    def __init__(self, address: str, least_rate: int) -> None:
        self.address = address
        self._bytes = 0
        self._waited_s = 0.0
        self._waits_since: float | None = None
        self._least = least_rate * WINDOW_S
        self._window_s = 0.0
        self._window_bytes = 0
        self._timeout: asyncio.Timeout | None = None
        self._gave_way = False

    @property
    def waited_s(self) -> float:
        """Seconds that the client was waited for so far."""
        if self._waits_since is None:
            return self._waited_s
        return self._waited_s + _now() - self._waits_since

    @property
    def rate(self) -> float:
        """Bytes a second so far."""
        return self._bytes / max(self.waited_s, 0.001)

    async def next_chunk(self, content: StreamReader) -> bytes:
        """Return what has come, or nothing at the end.

        Raises
        ------
        UploadTooSlow
            Over the last window the client sent less than it has to.
        TooManyUploads
            This body made room for another.
        """
        while True:
            chunk = None if self._gave_way else await self._wait(content)
            if self._gave_way:
                raise TooManyUploads
            if self._window_s >= WINDOW_S:
                if self._window_bytes < self._least:
                    raise UploadTooSlow
                self._window_s, self._window_bytes = 0.0, 0
            if chunk is not None:
                return chunk

    async def _wait(self, content: StreamReader) -> bytes | None:
        """Return what comes before the window ends, or None."""
        if there := content.read_nowait():  # it came while the last one was worked on
            self._count(there)
            return there
        left, chunk = WINDOW_S - self._window_s, None
        self._waits_since = since = _now()
        try:
            async with asyncio.timeout(left) as self._timeout:
                chunk = await content.readany()
        except TimeoutError:
            pass
        finally:
            self._timeout = self._waits_since = None
        # What a busy event loop adds to a window is not the client's.
        took = left if chunk is None else min(_now() - since, left)
        self._waited_s += took
        self._window_s += took
        self._count(chunk or b"")
        return chunk

    def _count(self, chunk: bytes) -> None:
        self._bytes += len(chunk)
        self._window_bytes += len(chunk)

    def give_way(self) -> None:
        """Have the body's reader raise at once."""
        self._gave_way = True
        if self._timeout is not None:
            self._timeout.reschedule(_now())


class BodyRateLimit:
    """What this process takes in: so many turns, in some of which a body is being read.

    Attributes
    ----------
    bodies : those that are being read.
    """

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.max_uploads
        self._limit_of_one = settings.max_uploads_per_address or settings.max_uploads
        self._least_rate = settings.min_upload_rate
        self._turns: Counter[str] = Counter()
        self.bodies: set[BodyReader] = set()

    @contextmanager
    def acquire(self, address: str | None) -> Iterator[None]:
        """Take in what a client at `address` sends: its body, and what is then done with it.

        Raises
        ------
        TooManyUploads
            As many as may be are taken in already, and no body is slow enough to make room.
        """
        address = address or ""
        self._make_room(address)
        self._turns[address] += 1
        try:
            yield
        finally:
            self._turns[address] -= 1
            if not self._turns[address]:
                del self._turns[address]

    @contextmanager
    def reader(self, address: str | None) -> Iterator[BodyReader]:
        """Read a body within a turn of a client at `address`; only now it may make room."""
        reader = BodyReader(address or "", self._least_rate)
        self.bodies.add(reader)
        try:
            yield reader
        finally:
            self.bodies.discard(reader)

    def _make_room(self, address: str) -> None:
        if self._turns[address] >= self._limit_of_one:
            self._drop_slowest([each for each in self.bodies if each.address == address])
        elif self._turns.total() >= self._limit:
            self._drop_slowest(self.bodies)

    def _drop_slowest(self, bodies: Collection[BodyReader]) -> None:
        slow = [each for each in bodies if each.waited_s >= GRACE_S and each.rate < SLOW_RATE]
        if not slow:
            raise TooManyUploads
        slowest = min(slow, key=lambda each: each.rate)
        self.bodies.discard(slowest)
        slowest.give_way()


def _now() -> float:
    return asyncio.get_running_loop().time()
