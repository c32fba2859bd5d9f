"""Vectors in Qdrant Edge: Qdrant's own engine inside this process, a folder a collection.

Nothing here calls ``optimize()``, which would stop the whole process for half a minute at 10,000
points of 2048 numbers; `EdgeOptimizing` has a child do that.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import qdrant_edge as edge

from deeplens_streams.vectors.base import Hit, PointPage, SearchFilter, VectorPoint
from deeplens_streams.vectors.collection_ref import CollectionRef
from deeplens_streams.vectors.edge.collections import EdgeCollections
from deeplens_streams.vectors.edge.filters import to_filter
from deeplens_streams.vectors.filters import (
    Conditions,
    all_points,
    conditions,
    points_of,
    shown_payload,
    stored_payload,
    to_hit,
    to_page,
    versions,
)
from deeplens_streams.vectors.scores import best, lowest
from deeplens_streams.vectors.validation import checked_points, checked_vector

#: Points in one call: the process does nothing else for about 5 ms.
_BATCH = 64


class EdgeVectors(EdgeCollections):
    """`VectorStore` of one process."""

    async def upsert(self, points: Sequence[VectorPoint], *, tenant: str, model: str) -> None:
        place = self._place(tenant, model)
        vectors = checked_points(points)
        made = [
            edge.Point(
                place.point_id(point.image_id),
                vector.tolist(),  # which is read faster than the array itself
                stored_payload(point.payload, place),
            )
            for point, vector in zip(points, vectors, strict=True)
        ]

        def write(batch: list[edge.Point]) -> None:
            self._engine.check_room()
            shard = self._shard(place, vectors[0].size)
            shard.update(edge.UpdateOperation.upsert_points(batch))
            self._engine.shards.changed(place.name, [str(each.id) for each in batch])

        for begin in range(0, len(made), _BATCH):
            await self._engine.run(partial(write, made[begin : begin + _BATCH]))

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
        place = self._place(tenant, model)
        query, wanted = checked_vector(vector), to_filter(conditions(where, place))

        def find(count: int) -> list[Hit]:
            shard = self._engine.shards.get(place.name)
            self._engine.shards.damaged.check(place.name)
            if shard is None:
                return []
            request = edge.QueryRequest(
                limit=count,
                query=edge.Query.Nearest(query),  # type: ignore[arg-type]  # as above
                filter=wanted,
                score_threshold=lowest(threshold),
                with_payload=True,
            )
            return [to_hit(found.payload or {}, found.score) for found in shard.query(request)]

        async def ask(count: int) -> list[Hit]:
            return await self._engine.run(partial(find, count))

        return await best(ask, limit=limit, threshold=threshold)

    async def get_vector(
        self, *, tenant: str, model: str, image_id: str
    ) -> npt.NDArray[np.float32] | None:
        place = self._place(tenant, model)
        found = await self._found(place, points_of(place, [image_id]), with_vector=True)
        if not found:
            await self._engine.run(partial(self._engine.shards.damaged.check, place.name))
        return np.array(found[0].vector, dtype=np.float32) if found else None

    async def get_point(self, *, tenant: str, model: str, image_id: str) -> VectorPoint | None:
        place = self._place(tenant, model)
        for found in await self._found(place, points_of(place, [image_id]), with_vector=True):
            vector = np.array(found.vector, dtype=np.float32)
            return VectorPoint(image_id, vector, shown_payload(found.payload or {}))
        return None

    async def present(self, image_ids: Sequence[str], *, tenant: str, model: str) -> set[str]:
        return set(await self.preprocessing(image_ids, tenant=tenant, model=model))

    async def preprocessing(
        self, image_ids: Sequence[str], *, tenant: str, model: str
    ) -> dict[str, int]:
        place = self._place(tenant, model)
        found = await self._found(place, points_of(place, image_ids))
        return versions(point.payload or {} for point in found)

    async def page(
        self, *, tenant: str, model: str, limit: int, after: str | None = None
    ) -> PointPage:
        place = self._place(tenant, model)
        request = edge.ScrollRequest(
            offset=after, limit=limit, filter=to_filter(all_points(place)), with_payload=True
        )

        def read() -> PointPage:
            shard = self._engine.shards.get(place.name)
            if shard is None:
                return PointPage([], None)
            found, following = shard.scroll(request)
            points = [(str(point.id), point.payload or {}) for point in found]
            return to_page(points, None if following is None else str(following))

        return await self._engine.run(read)

    async def delete(self, image_ids: Sequence[str], *, tenant: str, model: str) -> None:
        place = self._place(tenant, model)
        gone = points_of(place, image_ids)
        wanted = to_filter(gone)
        assert wanted is not None, "it names points"

        def remove() -> None:
            self._engine.check_room()
            shard = self._engine.shards.get(place.name)
            if shard is not None and gone.points:
                shard.update(edge.UpdateOperation.delete_points_by_filter(wanted))
                self._engine.shards.changed(place.name, gone.points)

        await self._engine.run(remove)

    async def count(self, *, tenant: str, model: str) -> int:
        place = self._place(tenant, model)
        request = edge.CountRequest(exact=True, filter=to_filter(all_points(place)))

        def read() -> int:
            shard = self._engine.shards.get(place.name)
            self._engine.shards.damaged.check(place.name)
            return shard.count(request) if shard else 0

        return await self._engine.run(read)

    async def _found(
        self, place: CollectionRef, wanted: Conditions, *, with_vector: bool = False
    ) -> list[edge.Record]:
        """Return the points of `wanted`, which names them."""
        request = edge.ScrollRequest(
            limit=len(wanted.points or ()),
            filter=to_filter(wanted),
            with_payload=True,
            with_vector=with_vector,
        )

        def read() -> list[edge.Record]:
            shard = self._engine.shards.get(place.name)
            return shard.scroll(request)[0] if shard and wanted.points else []

        return await self._engine.run(read)
