"""Uploads from a client that keeps a book of what it was answered, and one that looks at them."""

import asyncio
import io
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.support.system import Worker

TENANT = "acme-corp"


@dataclass
class Book:
    """What became of each upload, by its file's name.

    Attributes
    ----------
    accepted : answered with 202; the image's ID.
    refused : answered with an error, every time; its status.
    refusals : from when to when it was asked, by the event loop's clock, and with which code.
    cut : without an answer at least once, and never accepted: it may exist or not.
    """

    accepted: dict[str, str] = field(default_factory=dict)
    refused: dict[str, list[int]] = field(default_factory=dict)
    refusals: list[tuple[float, float, str]] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)
    slowest_s: float = 0.0


class Uploader:
    """Sends pictures to workers in turn; each has a file name of its own at each attempt.

    Parameters
    ----------
    tenants : whose the pictures are, one after the other.
    key : an API key, where they are asked for.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        *,
        tenants: Sequence[str] = (TENANT,),
        at_once: int = 8,
        key: str | None = None,
    ) -> None:
        self._headers = {"X-API-Key": key} if key else None
        self._turn, self._tenants = itertools.cycle(workers), tenants
        self._at_once = asyncio.Semaphore(at_once)
        self.book = Book()

    async def send(
        self,
        pictures: Sequence[bytes],
        *,
        per_second: float,
        until: asyncio.Event | None = None,
    ) -> Book:
        """Send all; each until it is accepted, under a new name after each failure.

        With `until`, all of them, and then some of them once more until it is set.
        """
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._headers) as http:
            tasks = []
            for number in itertools.count():
                if number >= len(pictures) and (until is None or until.is_set()):
                    break
                picture = pictures[number % len(pictures)]
                tasks.append(asyncio.create_task(self._until_accepted(http, number, picture)))
                await asyncio.sleep(1 / per_second)
            await asyncio.gather(*tasks)
        return self.book

    async def _until_accepted(
        self, http: aiohttp.ClientSession, number: int, picture: bytes
    ) -> None:
        tenant = self._tenants[number % len(self._tenants)]
        for attempt in itertools.count():
            async with self._at_once:
                if await self.one(http, f"{number:05d}-{attempt}.jpg", picture, tenant):
                    return
            await asyncio.sleep(0.5)

    async def one(
        self, http: aiohttp.ClientSession, name: str, picture: bytes, tenant: str = TENANT
    ) -> bool:
        form = aiohttp.FormData()
        form.add_field("tenantId", tenant)
        form.add_field("skipDuplicateCheck", "true")
        file = io.BytesIO(picture)
        form.add_field("file", file, filename=name, content_type="image/jpeg")
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            url = f"{next(self._turn).url}/api/v1/images/upload"
            async with http.post(url, data=form) as response:
                answer = await response.json()
        except aiohttp.ClientConnectorError:
            return False  # nobody was there
        except (aiohttp.ClientError, TimeoutError, OSError):
            self.book.cut.add(name)
            return False
        self.book.slowest_s = max(self.book.slowest_s, loop.time() - began)
        if response.status == 202:
            self.book.accepted[name] = answer["imageId"]
            return True
        self.book.refused.setdefault(name, []).append(response.status)
        said = f"{answer['errorCode']} {tenant} {response.url}"
        self.book.refusals.append((began, loop.time(), said))
        return False


@dataclass
class Onlooker:
    """Asks workers in turn for the status of pictures that were accepted.

    Attributes
    ----------
    answers : how often each status came.
    wrong : answers that should not be: anything but the status, or when to ask again.
    waits_s : for each answer, in the order in which they came.
    """

    book: Book
    workers: Sequence[Worker]
    answers: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)

    async def look(self, seed: int) -> None:
        """Go on until cancelled."""
        chance, loop = random.Random(seed), asyncio.get_running_loop()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
            for worker in itertools.cycle(self.workers):
                await asyncio.sleep(0.1)
                if not self.book.accepted:
                    continue
                image_id = chance.choice(list(self.book.accepted.values()))
                began = loop.time()
                try:
                    await self._ask(http, f"{worker.url}/api/v1/images/{image_id}/status")
                except aiohttp.ClientError:
                    continue  # nobody was there, or it was killed at it
                self.waits_s.append(loop.time() - began)

    async def _ask(self, http: aiohttp.ClientSession, url: str) -> None:
        async with http.get(url) as response:
            text = await response.text()
        self.answers[response.status] += 1
        is_wait = response.status == 503 and "Retry-After" in response.headers
        if response.status != 200 and not is_wait:
            self.wrong.append(f"{response.status} {text[:200]}")
