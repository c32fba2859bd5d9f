"""Vectors on a Qdrant server or cluster."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from deeplens_streams.vectors.base import Hit, PointPage, SearchFilter, VectorPoint
from deeplens_streams.vectors.collection_ref import CollectionRef
from deeplens_streams.vectors.filters import (
    VERSION_FIELD,
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
from deeplens_streams.vectors.qdrant.client import CollectionMissing, faults, to_filter
from deeplens_streams.vectors.qdrant.collections import ServerCollections
from deeplens_streams.vectors.scores import best, lowest
from deeplens_streams.vectors.validation import check_dimension, checked_points, checked_vector

#: Points in one request; 2 MB of 2048 numbers each.
_BATCH = 256


class ServerVectors(ServerCollections):
    """`VectorStore` through a client, which it owns."""

    async def upsert(self, points: Sequence[VectorPoint], *, tenant: str, model: str) -> None:
        place = self._place(tenant, model)
        vectors = checked_points(points)
        if not vectors:
            return
        made = [
            models.PointStruct(
                id=place.point_id(point.image_id),
                vector=vector.tolist(),
                payload=stored_payload(point.payload, place),
            )
            for point, vector in zip(points, vectors, strict=True)
        ]
        dimension = await self._dimension(place.name)
        if dimension is None:
            dimension = await self._create(place, vectors[0].size)
        check_dimension(vectors[0], dimension)
        for begin in range(0, len(made), _BATCH):
            await self._write(place, made[begin : begin + _BATCH], dimension)

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
        query = checked_vector(vector)
        wanted = to_filter(conditions(where, place))
        dimension = await self._dimension(place.name)
        if dimension is None:
            return []
        check_dimension(query, dimension)

        async def ask(count: int) -> list[Hit]:
            with faults():
                found = await self._client.query_points(
                    place.name,
                    query=query.tolist(),
                    query_filter=wanted,
                    limit=count,
                    score_threshold=lowest(threshold),
                    with_payload=True,
                )
            return [to_hit(point.payload or {}, point.score) for point in found.points]

        try:
            return await best(ask, limit=limit, threshold=threshold)
        except CollectionMissing:
            self._dimensions.pop(place.name, None)
            return []

    async def get_vector(
        self, *, tenant: str, model: str, image_id: str
    ) -> npt.NDArray[np.float32] | None:
        place = self._place(tenant, model)
        found = await self._found(place, points_of(place, [image_id]), with_vectors=True)
        return np.array(found[0].vector, dtype=np.float32) if found else None

    async def get_point(self, *, tenant: str, model: str, image_id: str) -> VectorPoint | None:
        place = self._place(tenant, model)
        wanted = points_of(place, [image_id])
        for found in await self._found(place, wanted, with_vectors=True, with_payload=True):
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
        try:
            with faults():
                found, following = await self._client.scroll(
                    place.name,
                    scroll_filter=to_filter(all_points(place)),
                    limit=limit,
                    offset=after,
                    with_payload=["imageId", "uploadedAt"],
                )
        except CollectionMissing:
            return PointPage([], None)
        points = [(str(point.id), point.payload or {}) for point in found]
        return to_page(points, None if following is None else str(following))

    async def delete(self, image_ids: Sequence[str], *, tenant: str, model: str) -> None:
        place = self._place(tenant, model)
        gone = to_filter(points_of(place, image_ids))
        assert gone is not None, "it names points"
        if not image_ids:
            return
        try:
            with faults():
                await self._client.delete(place.name, models.FilterSelector(filter=gone), wait=True)
        except CollectionMissing:
            return

    async def count(self, *, tenant: str, model: str) -> int:
        place = self._place(tenant, model)
        try:
            return await self._count(place.name, all_points(place))
        except CollectionMissing:
            return 0

    async def _found(
        self,
        place: CollectionRef,
        wanted: Conditions,
        *,
        with_vectors: bool = False,
        with_payload: bool = False,
    ) -> list[models.Record]:
        """Return the points of `wanted`, which names them."""
        if not wanted.points:
            return []
        try:
            with faults():
                found, _ = await self._client.scroll(
                    place.name,
                    scroll_filter=to_filter(wanted),
                    limit=len(wanted.points),
                    with_payload=with_payload or ["imageId", VERSION_FIELD],
                    with_vectors=with_vectors,
                )
        except CollectionMissing:
            return []
        return found

    async def _write(
        self, place: CollectionRef, batch: list[models.PointStruct], dimension: int
    ) -> None:
        try:
            with faults():
                await self._client.upsert(place.name, batch, wait=True)
        except CollectionMissing:  # removed since it was seen
            self._dimensions.pop(place.name, None)
            await self._create(place, dimension)
            with faults():
                await self._client.upsert(place.name, batch, wait=True)
