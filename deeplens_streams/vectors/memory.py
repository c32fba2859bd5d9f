"""Vectors in memory, compared one by one: small, exact, and what the engines are tested against."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplens_streams.vectors.base import Hit, SearchFilter, VectorPoint, point_id
from deeplens_streams.vectors.checks import (
    check_dimension,
    checked_collection,
    checked_points,
    checked_vector,
)
from deeplens_streams.vectors.conditions import (
    TERMS,
    TIME_FIELD,
    Conditions,
    conditions,
    stored_payload,
    to_hit,
)

_Row = tuple[npt.NDArray[np.float32], dict[str, Any]]


class MemoryVectors:
    """`VectorStore` that forgets everything with the process."""

    def __init__(self) -> None:
        self._collections: dict[str, dict[str, _Row]] = {}
        self._dimensions: dict[str, int] = {}

    async def start(self) -> None:
        pass

    async def upsert(self, points: Sequence[VectorPoint], *, tenant: str, model: str) -> None:
        name = checked_collection(tenant=tenant, model=model)
        vectors = checked_points(points)
        if not vectors:
            return
        check_dimension(vectors[0], self._dimensions.setdefault(name, vectors[0].size))
        rows = self._collections.setdefault(name, {})
        for point, vector in zip(points, vectors, strict=True):
            unit = vector / np.linalg.norm(vector)
            key = point_id(image_id=point.image_id, model=model)
            rows[key] = (unit, stored_payload(point.payload))

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
        query = checked_vector(vector)
        wanted = conditions(where, model=model)
        if name not in self._dimensions:
            return []
        check_dimension(query, self._dimensions[name])
        query = query / np.linalg.norm(query)
        hits = [
            to_hit(payload, float(unit @ query))
            for key, (unit, payload) in self._collections[name].items()
            if key != wanted.excluded_point and _holds(wanted, payload)
        ]
        best = sorted((hit for hit in hits if hit.score >= threshold), key=lambda hit: -hit.score)
        return best[:limit]

    async def get_vector(
        self, *, tenant: str, model: str, image_id: str
    ) -> npt.NDArray[np.float32] | None:
        rows = self._collections.get(checked_collection(tenant=tenant, model=model), {})
        row = rows.get(point_id(image_id=image_id, model=model))
        return row[0].copy() if row else None

    async def delete(self, image_ids: Sequence[str], *, tenant: str, model: str) -> None:
        rows = self._collections.get(checked_collection(tenant=tenant, model=model), {})
        for image_id in image_ids:
            rows.pop(point_id(image_id=image_id, model=model), None)

    async def count(self, *, tenant: str, model: str) -> int:
        return len(self._collections.get(checked_collection(tenant=tenant, model=model), {}))

    async def ping(self) -> None:
        """Memory always answers."""

    async def close(self) -> None:
        """There is nothing to let go of."""


def _holds(wanted: Conditions, payload: dict[str, Any]) -> bool:
    if not all(set(terms) & set(payload[TERMS]) for terms in wanted.any_of):
        return False
    if wanted.uploaded_from is None and wanted.uploaded_before is None:
        return True
    uploaded = datetime.fromisoformat(payload[TIME_FIELD])
    if wanted.uploaded_from is not None and uploaded < wanted.uploaded_from:
        return False
    return wanted.uploaded_before is None or uploaded < wanted.uploaded_before
