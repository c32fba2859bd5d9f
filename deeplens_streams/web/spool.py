"""Where an upload's bytes lie until they are checked: files of our own, gone afterwards."""

import asyncio
import errno
import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO, TypeVar

import structlog

from deeplens_streams.errors import StorageFull, StorageUnavailable

log = structlog.get_logger()

T = TypeVar("T")

_SUFFIX = ".upload"
#: Bytes that are hashed and written at once: fewer and hopping between threads costs more.
BLOCK_BYTES = 262_144
#: Disk and CPU work of uploads at once; more would only take turns on the same cores.
_THREADS = 4
_FULL = {errno.ENOSPC, errno.EDQUOT}


class SpooledFile:
    """One upload's bytes on their way to the disk.

    Attributes
    ----------
    path : of the file; there is none before the first block.
    size : bytes taken so far.
    """

    def __init__(self, path: Path, run: "Spool") -> None:
        self.path = path
        self.size = 0
        self._spool = run
        self._hash = hashlib.sha256()
        self._pending: list[bytes | memoryview] = []
        self._pending_bytes = 0
        self._file: BinaryIO | None = None
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
        if self._pending_bytes >= BLOCK_BYTES:
            await self._flush()

    async def finish(self) -> str:
        """Write the rest; return the SHA-256 of everything in hexadecimal."""
        await self._flush()
        return self._hash.hexdigest()

    async def _flush(self) -> None:
        pieces, self._pending, self._pending_bytes = self._pending, [], 0
        await self._spool.run(lambda: self._write(pieces))

    def _write(self, pieces: Sequence[bytes | memoryview]) -> None:
        with self._lock:
            if self._gone:
                return
            try:
                if self._file is None:
                    self.path.touch(mode=0o600, exist_ok=False)
                    self._file = self.path.open("wb", buffering=0)
                for piece in pieces:
                    self._hash.update(piece)
                    _write_all(self._file, piece)
            except OSError as error:
                if error.errno in _FULL:
                    raise StorageFull from error
                raise StorageUnavailable(
                    "The folder for incoming uploads cannot be written; try again later."
                ) from error

    def discard(self) -> None:
        """Close and remove the file; what is written afterwards goes nowhere."""
        with self._lock:
            self._gone = True
            if self._file is not None:
                self._file.close()
                self.path.unlink(missing_ok=True)


def _write_all(file: BinaryIO, piece: bytes | memoryview) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


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
        file = SpooledFile(self._folder / f"{uuid.uuid4().hex}{_SUFFIX}", self)
        try:
            yield file
        finally:
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
