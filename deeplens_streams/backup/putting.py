"""Writing one object back: only what is as the manifest says, and only where nothing good is."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from deeplens_streams.backup.catalogue import Entry
from deeplens_streams.backup.copying import (
    Content,
    Counts,
    Finding,
    Reader,
    Tell,
    broken_json,
    checksum,
)
from deeplens_streams.backup.existing import Existing
from deeplens_streams.storage import Blobs
from deeplens_streams.storage.blobs.store import JSON, Write

#: Says what is wrong with content that has no checksum in the manifest, or None.
Damage = Callable[[Content], str | None]


@dataclass(frozen=True, slots=True)
class Putting:
    """Of one restore.

    Attributes
    ----------
    reader, target_reader : of the backup, and of the storage.
    existing : what the storage had before.
    trusts_json : a later run of the backup was cut off, so an object that is JSON may be another
        than the manifest says, and is no worse for it.
    """

    reader: Reader
    target: Blobs
    target_reader: Reader
    existing: Existing
    tell: Tell
    counts: Counts
    trusts_json: bool

    def found(self, key: str, fault: str, detail: str) -> None:
        self.counts.faults[fault] += 1
        self.tell(Finding(key, fault, detail))

    async def put(self, entry: Entry, *, damage: Damage = lambda _: None) -> bool:
        """Write an object unless it is there; False if the backup cannot give it."""
        if self.existing.is_ours and self.existing.size(entry.key) == entry.size:
            self.counts.looked += 1
            return True
        async with self.read(entry, damage=damage) as content:
            if content is None:
                return False
            await self.write(entry, content, damage=damage)
            return True

    @asynccontextmanager
    async def read(
        self, entry: Entry, *, damage: Damage = lambda _: None
    ) -> AsyncIterator[Content | None]:
        """Give what the backup has of an object; None, and told of, where that is not right."""
        self.counts.looked += 1
        async with self.reader.read(entry.key, entry.size) as content:
            if content is None:
                self.found(entry.key, "missing", "the backup has lost it")
                yield None
                return
            wrong = self._wrong(entry, content, damage)
            if wrong is not None:
                self.found(entry.key, "damaged", f"{wrong}; it is not restored")
            yield content if wrong is None else None

    def _wrong(self, entry: Entry, content: Content, damage: Damage) -> str | None:
        if entry.sha256 is None:
            return damage(content) or broken_json(entry.key, content.data)
        if content.sha256 == entry.sha256:
            return None
        is_json = entry.key.endswith(".json") and not broken_json(entry.key, content.data)
        if self.trusts_json and is_json:
            return None
        return "the backup's copy is not what its manifest says"

    async def write(
        self, entry: Entry, content: Content, *, damage: Damage = lambda _: None
    ) -> None:
        """Write what was read, unless the storage has it, or something newer."""
        size = self.existing.size(entry.key)
        if size is not None and not self.existing.is_ours:
            async with self.target_reader.read(entry.key, size) as there:
                if there is not None and not self._is_broken(entry.key, there, damage):
                    return
        await self._write(entry.key, content)

    def _is_broken(self, key: str, there: Content, damage: Damage) -> bool:
        return not there.size or bool(damage(there)) or bool(broken_json(key, there.data))

    async def make(self, key: str, data: bytes) -> None:
        """Write a small object that the backup should have had, unless something is there."""
        content = Content(data, len(data), await checksum(data))
        await self.write(Entry(key, content.size, content.sha256), content)

    async def _write(self, key: str, content: Content) -> None:
        kind = JSON if key.endswith(".json") else "application/octet-stream"
        await self.target.put(Write(key, content.data, kind), action="write what is restored")
        self.counts.copied += 1
        self.counts.bytes += content.size
