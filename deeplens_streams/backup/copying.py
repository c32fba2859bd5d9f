"""Copying one object: whole, told by its SHA-256, and never a damaged one over a good one."""

import asyncio
import hashlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from deeplens_streams.backup.catalogue import Catalogue, Entry
from deeplens_streams.backup.journal import Journal, Lease
from deeplens_streams.errors import NotFound
from deeplens_streams.storage import Blobs, object_keys
from deeplens_streams.storage.blobs.memory_budget import MIB, MemoryBudget
from deeplens_streams.storage.blobs.store import JSON, Listed, Write
from deeplens_streams.storage.measured import measured

#: Of images, and of dead letters.
POINTERS = (f"{object_keys.POINTERS}/", "failed/")
_READ, _WRITE = "read an object for a copy", "write a copy"
#: An object up to here is in memory while it is copied, a larger one in a file.
_WHOLE_MAX = 16 * MIB
#: Of all that are copied at once.
_BUDGET_MIB = 64
#: Bytes whose checksum is made on the event loop: asking a thread takes as long.
_QUICK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be, and where.

    Attributes
    ----------
    fault : a word for programs.
    detail : what it is, and what to do.
    """

    key: str
    fault: str
    detail: str


Tell = Callable[[Finding], None]


@dataclass(slots=True)
class Counts:
    """How far a run is."""

    looked: int = 0
    copied: int = 0
    bytes: int = 0
    removed: int = 0
    faults: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of an object, or the file that has them."""

    data: bytes | Path
    size: int
    sha256: str


class Reader:
    """Reads objects whole, in memory that is bounded.

    Parameters
    ----------
    folder : for what is too large for memory.
    """

    def __init__(self, blobs: Blobs, folder: Path) -> None:
        self._blobs, self._folder = blobs, folder
        self._budget = MemoryBudget(_BUDGET_MIB)

    @asynccontextmanager
    async def read(self, key: str, size: int) -> AsyncIterator[Content | None]:
        """Give an object's content, or None if there is none; afterwards it may be gone.

        Parameters
        ----------
        size : bytes, as far as is known.
        """
        if size > _WHOLE_MAX:
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                path = Path(file.name)
            try:
                yield await self._spooled(key, path)
            finally:
                await asyncio.to_thread(path.unlink, missing_ok=True)
            return
        async with self._budget.take(size):
            data = await self._blobs.get(key, action=_READ)
            yield None if data is None else Content(data, len(data), await checksum(data))

    async def _spooled(self, key: str, path: Path) -> Content | None:
        try:
            with path.open("wb") as file:
                found = await measured(self._blobs.stream(key, action=_READ), into=file)
        except NotFound:
            return None
        return Content(path, found.size, found.sha256)


async def checksum(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    if len(data) <= _QUICK:
        return hashlib.sha256(data).hexdigest()
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()


def broken_json(key: str, data: bytes | Path) -> str | None:
    """Return what is wrong with an object that is JSON by its key, or None."""
    is_json = key.endswith(".json") or (key.count("/") == 1 and key.startswith(POINTERS))
    if isinstance(data, Path) or not is_json:
        return None
    try:
        orjson.loads(data)
    except ValueError:
        return "it is empty" if not data else "it is no JSON"
    return None


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a backup works with.

    Attributes
    ----------
    tell : called with everything that is found, at once.
    """

    source: Blobs
    target: Blobs
    catalogue: Catalogue
    journal: Journal
    lease: Lease
    reader: Reader
    tell: Tell
    counts: Counts = field(default_factory=Counts)

    def found(self, key: str, fault: str, detail: str) -> None:
        self.counts.faults[fault] += 1
        self.tell(Finding(key, fault, detail))

    def is_copied(self, listed: Listed) -> bool:
        """Tell whether the backup has this object as it is, and mark it."""
        self.counts.looked += 1
        entry = self.catalogue.get(listed.key)
        if entry is None or entry.fault or entry.size != listed.size:
            return False
        if entry.stamp is None:  # copied in this run, or in one that was cut off
            self.catalogue.put(replace(entry, stamp=listed.stamp), seen=True)
            return True
        return entry.stamp == listed.stamp and self.catalogue.mark(listed.key)

    async def copy(self, listed: Listed) -> None:
        """Copy an object, unless the backup has it as it is."""
        if self.is_copied(listed):
            return
        async with self.reader.read(listed.key, listed.size) as content:
            if content is not None:  # else it went meanwhile
                fault = broken_json(listed.key, content.data)
                await self.keep(listed.key, content, stamp=listed.stamp, fault=fault)

    async def keep(
        self, key: str, content: Content, *, stamp: str | None = None, fault: str | None = None
    ) -> None:
        """Write an object into the backup, unless that has a better one.

        Parameters
        ----------
        fault : what is wrong with it.
        """
        entry = self.catalogue.get(key)
        if fault is not None:
            has_good = entry is not None and entry.fault is None
            kept = "the backup keeps the good copy that it has" if has_good else "copied as it is"
            is_told = entry is not None and entry.fault == fault and self.catalogue.is_seen(key)
            if not is_told:
                self.found(key, "damaged", f"{fault}; {kept}")
            if has_good:
                self.catalogue.mark(key)
                return
        new = Entry(key, content.size, content.sha256, stamp, fault)
        if entry is None or (entry.size, entry.sha256) != (content.size, content.sha256):
            kind = JSON if key.endswith(".json") else "application/octet-stream"
            await self.target.put(Write(key, content.data, kind), action=_WRITE)
            self.counts.copied += 1
            self.counts.bytes += content.size
            self.catalogue.put(new, seen=True)
            await self.journal.note(new)
        else:
            self.catalogue.put(new, seen=True)
        await self.lease.renew()

    async def keep_bytes(self, key: str, data: bytes) -> None:
        """Write a small object that was made here."""
        await self.keep(key, Content(data, len(data), await checksum(data)))

    async def remove(self, key: str) -> None:
        """Remove an object from the backup, if it is there."""
        if self.catalogue.get(key) is None:
            return
        await self.target.delete(key, action="remove from a backup")
        self.catalogue.remove(key)
        self.counts.removed += 1
        await self.journal.note_gone(key)
