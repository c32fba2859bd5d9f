"""Vectors in Qdrant Edge: Qdrant's own engine inside this process, a folder a collection.

Every call of this Edge holds Python's lock for as long as it works, so one thread does as well as
many and needs no locks: a collection is never closed under a search. For the same reason nothing
here calls ``optimize()``, which would stop the whole process for tens of seconds at 10,000 points
of 2048 numbers; without it a search reads every vector (7 ms at 10,000). Larger collections are
for a Qdrant server.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge
import structlog

from deeplens_streams.errors import (
    DeepLensError,
    DimensionMismatch,
    StorageFull,
    VectorsUnavailable,
)
from deeplens_streams.folder_lock import FolderLock
from deeplens_streams.vectors.base import Hit, SearchFilter, VectorPoint, point_id
from deeplens_streams.vectors.checks import checked_collection, checked_points, checked_vector
from deeplens_streams.vectors.conditions import (
    TERMS,
    TIME_FIELD,
    Conditions,
    conditions,
    stored_payload,
    to_hit,
)
from deeplens_streams.vectors.edge_shelf import EdgeShelf

log = structlog.get_logger()

_BATCH = 64
"""Points in one call: the process does nothing else for about 5 ms."""

RESERVE_BYTES = 256 * 1024 * 1024
"""Free space below which nothing is written. Edge writes through mapped files, and a disk that
fills up under one ends the process with SIGBUS; no error could be caught."""

_T = TypeVar("_T")


class EdgeVectors:
    """`VectorStore` of one process.

    Parameters
    ----------
    folder : taken by this process at `start`, or at the first call.
    max_open : collections open at once.
    reserve_bytes : free space on the folder's disk below which writes raise `StorageFull`.
    """

    def __init__(self, folder: Path, *, max_open: int, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._folder = folder
        self._reserve = reserve_bytes
        self._lock = FolderLock(
            folder,
            "give this one another DEEPLENS_DATA_DIR, or use a Qdrant server (DEEPLENS_QDRANT_URL)",
        )
        self._shelf = EdgeShelf(folder, max_open=max_open)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edge")
        self._closed = False

    async def start(self) -> None:
        """Take the folder.

        Raises
        ------
        ConfigurationError
            Another process has it, or it cannot be written.
        """
        await self._run(lambda: None)

    async def upsert(self, points: Sequence[VectorPoint], *, tenant: str, model: str) -> None:
        name = checked_collection(tenant=tenant, model=model)
        vectors = checked_points(points)
        made = [
            edge.Point(
                point_id(image_id=point.image_id, model=model),
                vector.tolist(),  # which is read faster than the array itself
                stored_payload(point.payload),
            )
            for point, vector in zip(points, vectors, strict=True)
        ]

        def write(batch: list[edge.Point]) -> None:
            self._check_room()
            shard = self._shelf.get(name) or self._shelf.create(name, dimension=vectors[0].size)
            shard.update(edge.UpdateOperation.upsert_points(batch))
            self._shelf.changed(name, len(batch))

        for begin in range(0, len(made), _BATCH):
            await self._run(partial(write, made[begin : begin + _BATCH]))

    async def search(
        self,
        vector: npt.NDArray[np.float32],
        *,
        tenant: str,
        model: str,
        limit: int,
        threshold: float,
        where: SearchFilter = SearchFilter(),  # noqa: B008 - frozen
    ) -> list[Hit]:
        name = checked_collection(tenant=tenant, model=model)
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(checked_vector(vector)),  # type: ignore[arg-type]  # as above
            filter=_filter(conditions(where, model=model)),
            score_threshold=threshold if threshold > -1 else None,
            with_payload=True,
        )

        def find() -> list[Hit]:
            shard = self._shelf.get(name)
            if shard is None:
                return []
            return [to_hit(found.payload or {}, found.score) for found in shard.query(request)]

        return await self._run(find)

    async def get_vector(
        self, *, tenant: str, model: str, image_id: str
    ) -> npt.NDArray[np.float32] | None:
        name = checked_collection(tenant=tenant, model=model)
        wanted = point_id(image_id=image_id, model=model)

        def read() -> npt.NDArray[np.float32] | None:
            shard = self._shelf.get(name)
            found = shard.retrieve([wanted], False, True) if shard else []
            return np.array(found[0].vector, dtype=np.float32) if found else None

        return await self._run(read)

    async def delete(self, image_ids: Sequence[str], *, tenant: str, model: str) -> None:
        name = checked_collection(tenant=tenant, model=model)
        gone: list[edge.PointId] = [point_id(image_id=each, model=model) for each in image_ids]

        def remove() -> None:
            self._check_room()
            shard = self._shelf.get(name)
            if shard is not None and gone:
                shard.update(edge.UpdateOperation.delete_points(gone))
                self._shelf.changed(name, len(gone))

        await self._run(remove)

    async def count(self, *, tenant: str, model: str) -> int:
        name = checked_collection(tenant=tenant, model=model)

        def read() -> int:
            shard = self._shelf.get(name)
            return shard.count(edge.CountRequest(exact=True)) if shard else 0

        return await self._run(read)

    async def ping(self) -> None:
        await self._run(lambda: None)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._let_go)
        finally:
            # The last job is done, so this does not wait.
            self._thread.shutdown(wait=True)

    def _let_go(self) -> None:
        try:
            with _faults():
                self._shelf.close_all()
        finally:
            self._lock.release()

    def _check_room(self) -> None:
        if shutil.disk_usage(self._folder).free < self._reserve:
            raise StorageFull("There is no room left for vectors; make room and try again.")

    async def _run(self, job: Callable[[], _T]) -> _T:
        """Do `job` in the engine's thread. A caller that is cancelled leaves it to finish."""
        if self._closed:
            raise VectorsUnavailable("The vector engine is closed.")

        def guarded() -> _T:
            self._lock.acquire()
            with _faults():
                return job()

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)


@contextmanager
def _faults() -> Iterator[None]:
    """Raise this system's errors for Edge's, which are bare `Exception` but for their text."""
    try:
        yield
    except DeepLensError:
        raise
    except Exception as error:
        reason = str(error)
        if "Vector dimension error" in reason:
            raise DimensionMismatch(
                f"The vector does not fit its collection: {reason.rpartition('error: ')[2]}."
            ) from error
        log.error("the vector engine failed", reason=reason)
        raise VectorsUnavailable from error


def _filter(wanted: Conditions) -> edge.Filter | None:
    must: list[edge.ConditionType] = [
        edge.FieldCondition(TERMS, match=edge.MatchAny(list(terms))) for terms in wanted.any_of
    ]
    if wanted.uploaded_from is not None or wanted.uploaded_before is not None:
        since, before = wanted.uploaded_from, wanted.uploaded_before
        between = edge.RangeDateTime(
            gte=since.isoformat() if since else None, lt=before.isoformat() if before else None
        )
        must.append(edge.FieldCondition(TIME_FIELD, range=between))
    must_not: list[edge.ConditionType] = (
        [edge.HasIdCondition({wanted.excluded_point})] if wanted.excluded_point else []
    )
    return edge.Filter(must=must, must_not=must_not) if must or must_not else None
