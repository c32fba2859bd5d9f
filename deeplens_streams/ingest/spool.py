"""Where an upload's bytes lie until they are stored: in memory, or files of our own."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from io import BytesIO, FileIO
from pathlib import Path
from threading import Lock
from typing import BinaryIO, TypeVar

import structlog

from deeplens_streams.errors import StorageFull, StorageUnavailable
from deeplens_streams.storage.blobs.errors import means_full
from deeplens_streams.storage.blobs.files import write_all
from models.events import new_event_id

log = structlog.get_logger()

T = TypeVar("T")

_SUFFIX = ".upload"
#: Bytes that are hashed and written at once: fewer and hopping between threads costs more.
BLOCK_BYTES = 524_288
#: Pieces of a block: those of a client that sends byte by byte must not fill the memory.
_MAX_PIECES = 1024
#: Disk and CPU work of uploads at once; more would only take turns on the same cores.
_THREADS = 4


class SpooledFile:
    """One upload's bytes: in memory as long as they are less than a block, then on the disk.

    Attributes
    ----------
    size : bytes taken so far.
    content : where all of them are, once `finish` has returned.
    """

    content: Path | bytes

    def __init__(self, path: Path, spool: "Spool") -> None:
        self.size = 0
        self._path = path
        self._spool = spool
        self._hash = hashlib.sha256()
        self._pending: list[bytes | memoryview] = []
        self._pending_bytes = 0
        self._is_begun = self._is_finished = False
        self._file: FileIO | None = None
        self._gone = False
        # An abandoned request discards the file while a thread may still write its last block.
        self._lock = Lock()

    def take(self, piece: bytes | memoryview) -> None:
        """Keep `piece` for the next block; costs nothing."""
        self._pending.append(piece)
        self._pending_bytes += len(piece)
        self.size += len(piece)

    async def settle(self) -> None:
        """Hash and write what was taken, if it is enough for a block."""
        if self._pending_bytes >= BLOCK_BYTES or len(self._pending) >= _MAX_PIECES:
            pieces = self._pieces()
            self._is_begun = True
            await self._spool.run(lambda: self._write(pieces))

    async def finish(self, look: Callable[[BinaryIO], T]) -> tuple[str, T]:
        """Return the SHA-256 of everything in hexadecimal and what `look` says of it.

        `look` is called in a thread.
        """
        pieces = self._pieces()
        if self._is_begun:
            found = await self._spool.run(lambda: self._end_on_disk(pieces, look))
        else:
            found = await self._spool.run(lambda: self._end_in_memory(pieces, look))
        self._is_finished = True
        return found

    def _pieces(self) -> Sequence[bytes | memoryview]:
        pieces, self._pending, self._pending_bytes = self._pending, [], 0
        return pieces

    def _end_in_memory(
        self, pieces: Sequence[bytes | memoryview], look: Callable[[BinaryIO], T]
    ) -> tuple[str, T]:
        self.content = b"".join(pieces)
        self._hash.update(self.content)
        return self._hash.hexdigest(), look(BytesIO(self.content))

    def _end_on_disk(
        self, pieces: Sequence[bytes | memoryview], look: Callable[[BinaryIO], T]
    ) -> tuple[str, T]:
        self._write(pieces)
        self._close()
        self.content = self._path
        with self._path.open("rb") as file:
            return self._hash.hexdigest(), look(file)

    def _write(self, pieces: Sequence[bytes | memoryview]) -> None:
        with self._lock:
            if self._gone:
                return
            try:
                if self._file is None:
                    self._file = self._path.open("xb", buffering=0)
                block = b"".join(pieces)
                self._hash.update(block)
                write_all(self._file, block)
            except OSError as error:
                if means_full(error):
                    raise StorageFull from error
                raise StorageUnavailable(
                    "The folder for incoming uploads cannot be written; try again later."
                ) from error

    def _close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()

    @property
    def is_left(self) -> bool:
        """Whether there is a file to remove, or may be: storage moves it away where it can."""
        return self._is_begun and not (self._is_finished and not self._path.exists())

    def discard(self) -> None:
        """Close and remove the file; what is written afterwards goes nowhere."""
        with self._lock:
            self._gone = True
            if self._file is not None:
                self._file.close()
                self._path.unlink(missing_ok=True)


class Spool:
    """The folder and the threads of all uploads of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="upload")

    async def run(self, work: Callable[[], T]) -> T:
        """Do blocking `work` for an upload, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[SpooledFile]:
        """Hand out a new file, which is gone afterwards whatever happens."""
        file = SpooledFile(self._folder / f"{new_event_id()}{_SUFFIX}", self)
        try:
            yield file
        finally:
            if file.is_left:
                # Handed to the thread before the first await: a cancelled request cannot stop it.
                await self.run(file.discard)

    async def prepare(self) -> None:
        """Make the folder, for this user alone, and remove what a killed process left."""
        await self.run(self._prepare)

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        left = list(self._folder.glob(f"*{_SUFFIX}"))
        for path in left:
            path.unlink(missing_ok=True)
        if left:
            log.info("removed unfinished uploads", count=len(left))

    def close(self) -> None:
        self._threads.shutdown(wait=True)
