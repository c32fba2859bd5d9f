"""The folder, the thread and the open collections behind Qdrant Edge.

Every call of this Edge holds Python's lock for as long as it works, so one thread does as well as
many and needs no locks: a collection is never closed under a search.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from deeplens_streams.errors import (
    DeepLensError,
    DimensionMismatch,
    StorageFull,
    VectorsRefused,
    VectorsUnavailable,
)
from deeplens_streams.host.folder_lock import FolderLock
from deeplens_streams.vectors.edge.damage import is_of_engine
from deeplens_streams.vectors.edge.shards import ShardCache

#: Free space below which nothing is written. Edge writes through mapped files, and a disk that
#: fills up under one ends the process with SIGBUS; no error could be caught.
RESERVE_BYTES = 256 * 1024 * 1024

#: How Edge begins what it says of a request, and characters of it that are passed on.
_OF_A_REQUEST = (
    "Not existing vector name error",
    "No point with id",
    "No range index",
    "Validation error",
    "Validation failed",
    "Wrong input",
)
_REASON = 200

_T = TypeVar("_T")


class EdgeEngine:
    """Edge's folder, and the one thread that all work on it is done in.

    Attributes
    ----------
    folder : taken by this process at the first job.
    shards : for jobs alone.
    """

    def __init__(self, folder: Path, *, max_open: int, reserve_bytes: int) -> None:
        self.folder = folder
        self.shards = ShardCache(folder, max_open=max_open)
        self._reserve = reserve_bytes
        self._lock = FolderLock(
            folder,
            "give this one another DEEPLENS_DATA_DIR, or use a Qdrant server (DEEPLENS_QDRANT_URL)",
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edge")
        self._recovered = False
        self.closed = False

    async def run(self, job: Callable[[], _T]) -> _T:
        """Do `job` in the engine's thread. A caller that is cancelled leaves it to finish."""
        if self.closed:
            raise VectorsUnavailable("The vector engine is closed.")

        def guarded() -> _T:
            self._lock.acquire()
            with _faults():
                if not self._recovered:
                    self.shards.recover()
                    self._recovered = True
                self.shards.begin_job()
                try:
                    return job()
                except DeepLensError:
                    raise
                except BaseException as error:
                    self.shards.failed(error)
                    raise

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    def check_room(self, needed_bytes: int = 0) -> None:
        """Raise `StorageFull` where so much more would touch the reserve."""
        if shutil.disk_usage(self.folder).free < self._reserve + needed_bytes:
            raise StorageFull("There is no room left for vectors; make room and try again.")

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._let_go)
        finally:
            # The last job is done, so this does not wait.
            self._thread.shutdown(wait=True)

    def _let_go(self) -> None:
        try:
            with _faults():
                self.shards.close_all()
        finally:
            self._lock.release()


@contextmanager
def _faults() -> Iterator[None]:
    """Raise this system's errors for Edge's, which are bare `Exception` but for their text.

    A wrong call of ours stays what it is.

    Raises
    ------
    DimensionMismatch, VectorsRefused
        Edge answers, and refuses this very thing.
    VectorsUnavailable
        It does not work, or not on this collection.
    """
    try:
        yield
    except DeepLensError:
        raise
    except BaseException as error:
        if not is_of_engine(error):
            raise
        reason = str(error)
        if "Vector dimension error" in reason:
            raise DimensionMismatch(
                f"The vector does not fit its collection: {reason.rpartition('error: ')[2]}."
            ) from error
        if reason.startswith(_OF_A_REQUEST):
            raise VectorsRefused(f"The vector engine refuses this: {reason[:_REASON]}") from error
        unavailable = VectorsUnavailable()
        unavailable.ambiguous = True  # one collection may be damaged
        raise unavailable from error
