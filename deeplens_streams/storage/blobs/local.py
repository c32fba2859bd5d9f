"""Objects in a local folder: obstore's keys and files, without a hop into its runtime for each."""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deeplens_streams.storage.blobs.errors import storage_faults
from deeplens_streams.storage.blobs.files import NewFile, new_file, unfinished
from deeplens_streams.storage.blobs.group_sync import GroupSync, Steps, at_once
from deeplens_streams.storage.blobs.store import AlreadyThere, Blobs, Write

if TYPE_CHECKING:
    from obstore.store import LocalStore

#: Bytes that are read on the event loop: asking a thread for them takes ten times as long.
_SMALL = 262_144
#: Bytes that are read before the size is asked for: all there is of most objects.
_TINY = 16_384
#: One event loop keeps no more of them busy.
_THREADS = 2
#: Unfinished writes that are in memory together.
_LISTED = 100
#: Folders that are remembered.
_KNOWN = 10_000

T = TypeVar("T")


class LocalBlobs(Blobs):
    """`Blobs` in a folder. Listing, streaming and times stay obstore's.

    Parameters
    ----------
    sync : whether what `put`, `swap`, `copy` and `delete` have done is on the disk when they
        return. Then of several writes of one `put`, the last is there after a power cut only if
        all are.
    """

    def __init__(self, store: "LocalStore", *, sync: bool = True) -> None:
        super().__init__(store)
        self._folder = Path(store.prefix or "/")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")
        self._group = GroupSync() if sync else None
        #: Folders that are on the disk, as far as is known: `_not_known` looks at the others.
        self._known: set[Path] = set()

    async def put(self, *writes: Write, action: str) -> None:
        with storage_faults(action):
            await self._do(self._put_all(writes))

    async def swap(self, write: Write, *, old: bytes, action: str) -> bool:
        with storage_faults(action):
            return await self._do(self._swapped(write, old))

    async def _do(self, steps: Steps[T]) -> T:
        if self._group is None:
            return await self._run(lambda: at_once(steps))
        return await _done(self._group.submit(steps))

    def _put_all(self, writes: Sequence[Write]) -> Steps[None]:
        news: list[NewFile] = []
        try:
            for write in writes:
                if write is writes[0] and write.if_absent and self._path(write).exists():
                    raise AlreadyThere  # before the others are written for nothing
                news.append(self._new(write))
            # 1. What is renamed has its bytes: otherwise a name may be left with none.
            yield from self._settled(news)
            # 2. All but the last, which makes them count.
            for write, new in zip(writes[:-1], news[:-1], strict=True):
                self._place(write, new)
            if len(news) > 1:
                yield {new.path.parent for new in news[:-1]}
            # 3. The last.
            self._place(writes[-1], news[-1])
            yield {news[-1].path.parent}
        except BaseException:
            for new in news:
                new.drop()
            raise

    def _swapped(self, write: Write, old: bytes) -> Steps[bool]:
        try:
            if self._path(write).read_bytes() != old:
                return False
        except FileNotFoundError:
            return False
        new = self._new(write)
        try:
            yield from self._settled([new])
            swapped = new.swap(old)
            yield {new.path.parent}
        finally:
            new.drop()
        return swapped

    def _new(self, write: Write) -> NewFile:
        source = write.source() if callable(write.source) else write.source
        return new_file(self._path(write), source)

    def _place(self, write: Write, new: NewFile) -> None:
        if not write.if_absent:
            new.put()
        elif not new.make():
            raise AlreadyThere

    def _path(self, write: Write) -> Path:
        return self._folder / write.key

    def _settled(self, news: Sequence[NewFile]) -> Steps[None]:
        """Have the bytes of new files, and the folders that they will be in, be on the disk."""
        folders = {folder for new in news for folder in self._not_known(new.path.parent)}
        yield {new.beside for new in news} | {folder.parent for folder in folders}
        if len(self._known) > _KNOWN:
            self._known.clear()
        self._known |= folders

    def _not_known(self, folder: Path) -> Iterator[Path]:
        """Yield `folder` and those above it of which nobody knows whether they are on the disk.

        Who has made one may have been killed before it was, so that there is one says little.
        """
        if self._group is not None:
            while folder not in self._known and folder != folder.parent:
                yield folder
                folder = folder.parent

    async def get(self, key: str, *, action: str) -> bytes | None:
        with storage_faults(action), suppress(FileNotFoundError):
            file = os.open(self._folder / key, os.O_RDONLY | os.O_CLOEXEC)
            try:
                found = os.read(file, _TINY)
                if len(found) < _TINY:
                    return found
                size = os.fstat(file).st_size
                if size <= _SMALL:
                    return os.pread(file, size, 0)
                return await self._run(lambda: _whole(file))
            finally:
                os.close(file)
        return None

    async def size(self, key: str, *, action: str) -> int | None:
        with storage_faults(action), suppress(FileNotFoundError):
            found = (self._folder / key).stat()
            return found.st_size if stat.S_ISREG(found.st_mode) else None
        return None

    async def copy(self, source: str, target: str, *, action: str) -> bool:
        copied = await super().copy(source, target, action=action)
        if copied:
            with storage_faults(action):
                await self._do(self._copied(self._folder / target))
        return copied

    def _copied(self, path: Path) -> Steps[None]:
        """Have what was copied be on the disk: its source may be removed for it."""
        folders = set(self._not_known(path.parent))
        yield {path, path.parent} | {folder.parent for folder in folders}
        self._known |= folders

    async def walk_unfinished(
        self, path: str, *, action: str
    ) -> AsyncGenerator[tuple[str, datetime]]:
        found = unfinished(self._folder / path)
        with storage_faults(action):
            # Not in the threads that uploads wait for: a large folder takes a while.
            while some := await asyncio.to_thread(lambda: list(islice(found, _LISTED))):
                for file, at in some:
                    key = file.relative_to(self._folder).as_posix()
                    yield key, datetime.fromtimestamp(at, UTC)

    async def delete(self, key: str, *, action: str) -> None:
        with storage_faults(action):
            await self._do(self._deleted(self._folder / key))

    def _deleted(self, path: Path) -> Steps[None]:
        with suppress(FileNotFoundError):
            path.unlink()
            yield {path.parent}

    async def prune(self, path: str, *, action: str) -> None:
        def prune() -> None:
            for folder, _, _ in os.walk(self._folder / path, topdown=False):
                with suppress(OSError):  # something is in it, or it went meanwhile
                    Path(folder).rmdir()
            self._known.clear()

        with storage_faults(action):
            await self._run(prune)

    async def _run(self, work: Callable[[], T]) -> T:
        """Do blocking `work` in a thread; also when cancelled, it has ended afterwards."""
        return await _done(self._threads.submit(work))


def _whole(file: int) -> bytes:
    with open(file, "rb", buffering=0, closefd=False) as opened:
        opened.seek(0)
        return opened.readall()


async def _done(job: "Future[T]") -> T:
    """Wait for what a thread does; also when cancelled, it has ended afterwards.

    What a cancelled upload wrote is removed: nothing may be written behind that.
    """
    try:
        return await asyncio.wrap_future(job)
    except asyncio.CancelledError:
        while not job.done():
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.wrap_future(job)
        raise
