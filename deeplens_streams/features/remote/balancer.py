"""Several extraction services: who is asked next, and who is passed over and for how long."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from deeplens_streams.errors import DeepLensError, ExtractorUnavailable
from deeplens_streams.features.remote.errors import ExtractionFailed

#: Unexpected errors without an answer between them after which they are no picture's doing.
_ERRORS_IN_A_ROW = 3
#: Pings without an answer after which a service hangs; one may be lost.
_MISSES = 2
_LONGEST_REST_S = 30.0

T = TypeVar("T")

log = structlog.get_logger()


class NoAnswer(ExtractorUnavailable):
    """The extraction service does not answer; try again later."""


class _Service:
    """One service as this process knows it.

    Attributes
    ----------
    reason : why it is passed over; None while it is used.
    failures : of requests and pings since it last answered a request.
    heard_at : when it last did, on the loop's clock.
    deadlines : of the requests that it has in hand.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.reason: str | None = None
        self.failures = 0
        self.heard_at = 0.0
        self.deadlines: set[asyncio.Timeout] = set()
        self.watch: asyncio.Task[None] | None = None
        self.rest: asyncio.Task[None] | None = None
        self.check: asyncio.Task[None] | None = None

    @property
    def rank(self) -> tuple[bool, int]:
        """Lower is asked first; one that failed has one request in hand until it answers it."""
        return bool(self.failures and self.deadlines), len(self.deadlines)

    def give_up(self) -> None:
        """End what it has in hand now: it will not be answered."""
        for deadline in self.deadlines:
            if not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())


class LoadBalancer:
    """Asks the service that has the fewest requests in hand, and the next one if it is away.

    One that failed rests, longer each time, and is used again when it answers a ping. While
    one has requests and answers none it is pinged, too: where that is not answered, it hangs, and
    its requests go to others.

    Parameters
    ----------
    ping : raises `NoAnswer` if nobody is there, or another `ExtractorUnavailable` if whoever is
        there cannot be used.
    timeout_s : how long one request may take.
    look_s : after which time without an answer a service is pinged.
    rest_s : how long one that failed once is not used.
    """

    def __init__(
        self,
        urls: Collection[str],
        ping: Callable[[str], Awaitable[None]],
        *,
        timeout_s: float,
        look_s: float,
        rest_s: float,
    ) -> None:
        self._services = [_Service(url) for url in urls]
        self._ping = ping
        self._timeout_s, self._look_s, self._rest_s = timeout_s, look_s, rest_s
        self._turns = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def ask(self, call: Callable[[str], Awaitable[T]]) -> T:
        """Return what `call` returns of the first service that can answer it.

        Raises
        ------
        ExtractorUnavailable
            None can.
        Exception
            What else `call` raised: that is about the request, and no other service is asked.
        """
        tried: list[_Service] = []
        last: ExtractorUnavailable | None = None
        while (service := await self._next(tried)) is not None:
            tried.append(service)
            try:
                async with self._in_hand(service):
                    answer = await call(service.url)
            except ExtractorUnavailable as error:
                last = error
                self._failed(service, error.message)
            except ExtractionFailed as error:
                service.heard_at = asyncio.get_running_loop().time()
                self._failed(service, str(error), patience=_ERRORS_IN_A_ROW)
                raise
            except DeepLensError:
                self._answered(service)
                raise
            else:
                self._answered(service)
                return answer
        raise last or ExtractorUnavailable(self._services[0].reason)

    async def ping(self) -> None:
        """Raise `ExtractorUnavailable` unless a service answers now; one is enough."""
        pending = {asyncio.ensure_future(self._ping(each.url)) for each in self._services}
        last: BaseException | None = None
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                errors = [each.exception() for each in done]
                if None in errors:
                    return
                last = errors[0]
        finally:
            for each in pending:
                each.cancel()
        raise last or ExtractorUnavailable

    async def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _next(self, tried: Collection[_Service]) -> _Service | None:
        """Return who is to be asked now; None if nobody is left of whom an answer is expected."""
        left = [each for each in self._services if each not in tried]
        if all(each.reason for each in left):
            await self._one_of(left)
        usable = [each for each in left if each.reason is None]
        turn = next(self._turns) % max(1, len(usable))
        return min(usable[turn:] + usable[:turn], key=lambda each: each.rank, default=None)

    async def _one_of(self, services: Collection[_Service]) -> None:
        """Ping services that rest, until one answers or none does."""
        pending = {self._check(each) for each in services}
        while pending and all(each.reason for each in services):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    @asynccontextmanager
    async def _in_hand(self, service: _Service) -> AsyncIterator[None]:
        """Have one request in hand; `NoAnswer` where there is none in time."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._timeout_s) as deadline:
                service.deadlines.add(deadline)
                if service.watch is None or service.watch.done():
                    service.watch = self._spawn(self._watch(service))
                try:
                    yield
                finally:
                    service.deadlines.discard(deadline)
        except TimeoutError:
            if service.heard_at < began:  # nor did it answer anybody else
                service.give_up()
            raise no_answer(service.url, "it takes too long") from None

    async def _watch(self, service: _Service) -> None:
        """As long as it has requests, see that it is there."""
        loop, misses = asyncio.get_running_loop(), 0
        while service.deadlines:
            began = loop.time()
            await asyncio.sleep(self._look_s)
            if service.heard_at >= began:
                misses = 0
                continue
            misses += 1
            try:
                await self._ping(service.url)
            except NoAnswer:
                if misses >= _MISSES:
                    service.give_up()
            except ExtractorUnavailable:
                misses = 0
            else:
                misses = 0

    def _answered(self, service: _Service) -> None:
        service.heard_at = asyncio.get_running_loop().time()
        service.failures = 0

    def _failed(self, service: _Service, reason: str, *, patience: int = 1) -> None:
        """Pass it over for a while if this was the `patience`-th failure in a row."""
        if service.reason is not None:
            return  # others saw it before
        service.failures += 1
        if service.failures < patience or self._closed:
            return
        log.warning("an extraction service fails", url=service.url, reason=reason)
        service.reason = reason
        if service.rest is None or service.rest.done():
            service.rest = self._spawn(self._rest(service))

    async def _rest(self, service: _Service) -> None:
        while service.reason is not None:
            rest = self._rest_s * 2 ** min(service.failures - 1, 10)
            await asyncio.sleep(min(rest, _LONGEST_REST_S))
            if service.reason is not None:
                await asyncio.wait({self._check(service)})
                service.failures += service.reason is not None

    def _check(self, service: _Service) -> asyncio.Task[None]:
        """Find out whether it can be used; all who want to know wait for one ping."""
        if service.check is None or service.check.done():
            service.check = self._spawn(self._find_out(service))
        return service.check

    async def _find_out(self, service: _Service) -> None:
        try:
            await self._ping(service.url)
        except ExtractorUnavailable as error:
            service.reason = error.message
        else:
            log.info("an extraction service answers again", url=service.url)
            service.reason = None

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._closed:
            task.cancel()
        return task


def no_answer(url: str, cause: str) -> NoAnswer:
    return NoAnswer(f"The extraction service at {url} does not answer: {cause}")
