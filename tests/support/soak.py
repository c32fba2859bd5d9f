"""Many pictures through two workers, and what each process holds meanwhile."""

import asyncio
import json
import statistics
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psutil
from yarl import URL

from deeplens_streams.config import Settings
from tests.support.fault_injection import small_pictures
from tests.support.system import Client, System, Worker, until
from tests.support.uploads import TENANT, Uploader

#: How much more the last quarter may hold than the second.
GROWTH = 1.10
#: How many more files, threads or sockets.
MORE = 2
#: Files of one partition of a table: where RocksDB slows writers down, because they do not get
#: merged as fast as they come.
MOST_TABLE_FILES = 20
#: Connections to the extraction service: one for each picture that is in hand at once, which are
#: more or fewer as others leave this machine to the worker, and one that asks if it is there.
MOST_TO_EXTRACTOR = Settings().extract_concurrency + 1
#: Looks, a second apart, below which there is nothing to compare.
LEAST_LOOKS = 40


class Held:
    """What a process held, again and again."""

    def __init__(
        self,
        name: str,
        process: psutil.Process,
        *,
        maps_vectors: bool = False,
        extractor_url: str = "",
    ) -> None:
        self.name, self._process = name, process
        self._extractor = URL(extractor_url).port if extractor_url else None
        #: Vectors are mapped files, which the system drops when it wants the room.
        self._maps_vectors = maps_vectors
        self.memory: list[int] = []
        #: Files, threads and sockets.
        self.others: list[tuple[int, int, int]] = []
        #: By folder of a table's partition: the most files that it had at once. They gather and
        #: are merged, so at any moment there are more or fewer.
        self.tables: Counter[Path] = Counter()
        #: The most connections to the extraction service.
        self.to_extractor = 0

    def look(self) -> None:
        with self._process.oneshot():
            memory = self._process.memory_info()
            self.memory.append(memory.rss - (memory.shared if self._maps_vectors else 0))
            # What this process sends with is no matter of theirs, and there in half of the looks.
            ours = {each.laddr for each in psutil.Process().net_connections()}
            ends = self._process.net_connections()
            files = _files_of(self._process)
            tables = Counter(path.parent for path in files.values() if path.suffix == ".sst")
            self.tables |= tables
            files = {fd: path for fd, path in files.items() if path.suffix != ".sst"}
            asking = {e.fd for e in ends if e.raddr and e.raddr.port == self._extractor}
            self.to_extractor = max(self.to_extractor, len(asking))
            left = files.keys() - {end.fd for end in ends if end.raddr in ours} - asking
            sockets = left & {end.fd for end in ends}
            self.others.append((len(left), self._process.num_threads(), len(sockets)))

    def quarter(self, number: int) -> tuple[float, ...]:
        """Return the medians of a quarter: memory, files but for tables', threads, sockets."""
        size = len(self.memory) // 4
        part = slice((number - 1) * size, number * size)
        others = zip(*self.others[part], strict=True)
        return statistics.median(self.memory[part]), *map(statistics.median, others)

    def growth(self) -> list[str]:
        """Name what grew from the second quarter to the last."""
        if len(self.memory) < LEAST_LOOKS:
            return []
        memory, *others = zip(self.quarter(2), self.quarter(4), strict=True)
        grown = [f"{self.name}: memory {memory}"] if memory[1] > memory[0] * GROWTH else []
        names = ("files", "threads", "sockets")
        grown += [
            f"{self.name}: {count} files in {folder}"
            for folder, count in self.tables.items()
            if count > MOST_TABLE_FILES
        ]
        if self.to_extractor > MOST_TO_EXTRACTOR:
            grown.append(f"{self.name}: {self.to_extractor} connections to the extraction service")
        return grown + [
            f"{self.name}: {name} {change}"
            for name, change in zip(names, others, strict=True)
            if change[1] > change[0] + MORE
        ]


@dataclass(frozen=True, slots=True)
class Soaked:
    """What came of it: seconds, accepted uploads, the ledger of all, and who held what."""

    took_s: float
    accepted: int
    total: dict[str, Any]
    held: list[Held]

    def faults(self, pictures: int) -> list[str]:
        """Name what should not be."""
        counts = (self.accepted, self.total["accepted"], self.total["completed"])
        lost = [] if set(counts) == {pictures} else [f"{pictures} pictures became {self.total}"]
        return lost + [growth for each in self.held for growth in each.growth()]


async def soak(system: System, pictures: int, *, batch: int = 1000, in_step: bool) -> Soaked:
    """Send so many pictures through a worker with a model and one with the vectors.

    Parameters
    ----------
    in_step : whether a batch is sent when the one before it is at its end; else as fast as
        uploads are taken.
    """
    worker = await system.started("one", roles="api,process,extract")
    index = await system.started("two", roles="index")
    held = [
        Held("worker", _process(worker), extractor_url=system.extractor_url),
        Held("index", _process(index), maps_vectors=True),
    ]
    held += [Held("model", each) for each in _process(worker).children(recursive=True)]
    client = system.client(worker, TENANT)

    async def watch() -> NoReturn:
        while True:
            for each in held:
                each.look()
            await asyncio.sleep(1)

    began, accepted = time.monotonic(), 0
    watching = asyncio.create_task(watch())
    try:
        # Made as they are sent: the sender, too, holds no more than it needs.
        for seed, first in enumerate(range(0, pictures, batch)):
            some = small_pictures(min(batch, pictures - first), seed=seed)
            book = await Uploader([worker], at_once=12).send(some, per_second=1000)
            accepted += len(book.accepted)
            if in_step:
                await client.until_final(list(book.accepted.values()), seconds=600, poll_s=0.5)
    finally:
        watching.cancel()
        watched = (await asyncio.gather(watching, return_exceptions=True))[0]
    if not isinstance(watched, asyncio.CancelledError):
        raise watched  # a process that it watched has ended
    took = time.monotonic() - began
    return Soaked(took, accepted, await everything_done(client), held)


def _files_of(process: psutil.Process) -> dict[int, Path]:
    """Return what the process has open, by file descriptor."""
    files = {}
    for each in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            files[int(each.name)] = each.readlink()
    return files


def _process(worker: Worker) -> psutil.Process:
    assert worker.process is not None
    return psutil.Process(worker.process.pid)


async def everything_done(client: Client) -> dict[str, Any]:
    """Return the ledger when nothing is in flight."""
    total: dict[str, Any] = {}

    async def all_done() -> bool:
        async with client.http.post(f"/api/v1/admin/audit?tenantId={TENANT}") as response:
            total.update(json.loads((await response.text()).splitlines()[-1]))
        return bool(total["inFlight"] == 0)

    await until(all_done, "nothing is in flight", seconds=600, poll_s=3)
    return total
