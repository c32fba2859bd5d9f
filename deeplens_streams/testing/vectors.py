"""Vectors in memory, compared one by one: small, exact, and what the engines are tested against."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.vectors.base import (
    Collection,
    Hit,
    PointPage,
    SearchFilter,
    VectorPoint,
    collection_name,
)
from deeplens_streams.vectors.collection_ref import (
    TENANT_FIELD,
    CollectionRef,
    is_shared,
    owner_in,
    place_named,
    place_of,
    tenant_in,
)
from deeplens_streams.vectors.filters import (
    FILE_NAME,
    TERMS,
    TIME_FIELD,
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
from deeplens_streams.vectors.scores import ranked
from deeplens_streams.vectors.validation import (
    check_dimension,
    check_existing,
    check_limit,
    checked_points,
    checked_vector,
)
from models.collections import CollectionStatus

_Row = tuple[npt.NDArray[np.float32], dict[str, Any]]


@dataclass(slots=True)
class _Stored:
    """One of the engine's collections; `markers` are of tenants that made one in it."""

    dimension: int
    rows: dict[str, _Row] = field(default_factory=dict)
    markers: set[str] = field(default_factory=set)

    def matching(self, wanted: Conditions) -> Iterator[tuple[str, _Row]]:
        return (each for each in self.rows.items() if _holds(wanted, *each))


class MemoryVectors:
    """`VectorStore` that forgets everything with the process.

    Parameters
    ----------
    shared : whether tenants share one collection a model.
    """

    def __init__(self, *, shared: bool = False) -> None:
        self._shared = shared
        self._collections: dict[str, _Stored] = {}

    async def start(self) -> None:
        pass

    async def upsert(self, points: Sequence[VectorPoint], *, tenant: str, model: str) -> None:
        place = self._place(tenant, model)
        vectors = checked_points(points)
        if not vectors:
            return
        stored = self._collections.setdefault(place.name, _Stored(vectors[0].size))
        check_dimension(vectors[0], stored.dimension)
        for point, vector in zip(points, vectors, strict=True):
            unit = vector / np.linalg.norm(vector)
            stored.rows[place.point_id(point.image_id)] = (
                unit,
                stored_payload(point.payload, place),
            )

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
        wanted = conditions(where, place)
        stored = self._collections.get(place.name)
        if stored is None:
            return []
        check_dimension(query, stored.dimension)
        query = query / np.linalg.norm(query)
        hits = (
            to_hit(payload, float(unit @ query)) for _, (unit, payload) in stored.matching(wanted)
        )
        return ranked(hits, threshold=threshold)[:limit]

    async def get_vector(
        self, *, tenant: str, model: str, image_id: str
    ) -> npt.NDArray[np.float32] | None:
        place = self._place(tenant, model)
        found = self._matching(place, points_of(place, [image_id]))
        return found[0][1][0].copy() if found else None

    async def get_point(self, *, tenant: str, model: str, image_id: str) -> VectorPoint | None:
        place = self._place(tenant, model)
        for _, (unit, payload) in self._matching(place, points_of(place, [image_id])):
            return VectorPoint(image_id, unit.copy(), shown_payload(payload))
        return None

    async def present(self, image_ids: Sequence[str], *, tenant: str, model: str) -> set[str]:
        return set(await self.preprocessing(image_ids, tenant=tenant, model=model))

    async def preprocessing(
        self, image_ids: Sequence[str], *, tenant: str, model: str
    ) -> dict[str, int]:
        place = self._place(tenant, model)
        found = self._matching(place, points_of(place, image_ids))
        return versions(payload for _, (_, payload) in found)

    async def page(
        self, *, tenant: str, model: str, limit: int, after: str | None = None
    ) -> PointPage:
        place = self._place(tenant, model)
        rows = dict(self._matching(place, all_points(place)))
        keys = sorted(key for key in rows if after is None or key >= after)
        after = keys[limit] if len(keys) > limit else None
        return to_page([(key, rows[key][1]) for key in keys[:limit]], after)

    async def delete(self, image_ids: Sequence[str], *, tenant: str, model: str) -> None:
        place = self._place(tenant, model)
        self._remove(place, points_of(place, image_ids))

    async def count(self, *, tenant: str, model: str) -> int:
        place = self._place(tenant, model)
        return len(self._matching(place, all_points(place)))

    async def create(
        self, *, tenant: str, model: str, dimension: int, max_collections: int | None = None
    ) -> bool:
        place = self._place(tenant, model)
        stored = self._collections.get(place.name)
        if stored is not None:
            name = collection_name(tenant=tenant, model=model)
            check_existing(name=name, dimension=stored.dimension, asked=dimension)
        if self._is_there(place):
            return False
        check_limit(len(await self.models_of(tenant=tenant)), max_collections)
        stored = self._collections.setdefault(place.name, _Stored(dimension))
        stored.markers.add(tenant)
        return True

    async def models_of(self, *, tenant: str) -> list[str]:
        check_tenant_id(tenant)
        places = [
            place_named(name, tenant=tenant, shared=self._shared) for name in self._collections
        ]
        return sorted(place.model for place in places if place and self._is_there(place))

    async def tenants(self) -> list[str]:
        found = set[str]()
        for name, stored in self._collections.items():
            if self._shared and is_shared(name):
                owners = (owner_in(payload) for _, payload in stored.rows.values())
                found |= stored.markers | {owner for owner in owners if owner is not None}
            elif not self._shared and (owner := tenant_in(name)):
                found.add(owner)
        return sorted(found)

    async def describe(self, *, tenant: str, model: str) -> Collection | None:
        place = self._place(tenant, model)
        if not self._is_there(place):
            return None
        rows = self._matching(place, all_points(place))
        return Collection(
            model=model,
            name=collection_name(tenant=tenant, model=model),
            status=CollectionStatus.GREEN,
            vectors=len(rows),
            dimension=self._collections[place.name].dimension,
            indexed=0,
            memory_bytes=sum(unit.nbytes for _, (unit, _) in rows),
        )

    async def drop(self, *, tenant: str, model: str) -> bool:
        place = self._place(tenant, model)
        if not self._is_there(place):
            return False
        if not place.shared:
            del self._collections[place.name]
            return True
        self._collections[place.name].markers.discard(tenant)
        self._remove(place, all_points(place))
        return True

    async def optimize(self, *, tenant: str, model: str) -> bool:
        """There is nothing to index."""
        return self._is_there(self._place(tenant, model))

    async def damaged(self, *, tenant: str) -> list[str]:
        """Memory has no files."""
        check_tenant_id(tenant)
        return []

    async def give_up_damaged(self, *, tenant: str, model: str) -> None:
        """There is nothing to give up."""

    async def ping(self) -> None:
        """Memory always answers."""

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _place(self, tenant: str, model: str) -> CollectionRef:
        return place_of(tenant=tenant, model=model, shared=self._shared)

    def _matching(self, place: CollectionRef, wanted: Conditions) -> list[tuple[str, _Row]]:
        stored = self._collections.get(place.name)
        return list(stored.matching(wanted)) if stored else []

    def _remove(self, place: CollectionRef, wanted: Conditions) -> None:
        for key, _ in self._matching(place, wanted):
            del self._collections[place.name].rows[key]

    def _is_there(self, place: CollectionRef) -> bool:
        stored = self._collections.get(place.name)
        if stored is None or not place.shared:
            return stored is not None
        return place.tenant in stored.markers or bool(self._matching(place, all_points(place)))


def _holds(wanted: Conditions, key: str, row: _Row) -> bool:
    payload = row[1]
    if wanted.tenant not in (None, payload.get(TENANT_FIELD)):
        return False
    if key == wanted.excluded_point or (wanted.points is not None and key not in wanted.points):
        return False
    if not all(set(terms) & set(payload[TERMS]) for terms in wanted.any_of):
        return False
    if wanted.file_names is not None and payload.get(FILE_NAME) not in wanted.file_names:
        return False
    return _is_between(wanted, payload[TIME_FIELD])


def _is_between(wanted: Conditions, uploaded_at: str) -> bool:
    if wanted.uploaded_from is None and wanted.uploaded_before is None:
        return True
    uploaded = datetime.fromisoformat(uploaded_at)
    if wanted.uploaded_from is not None and uploaded < wanted.uploaded_from:
        return False
    return wanted.uploaded_before is None or uploaded < wanted.uploaded_before
