"""What there is in Qdrant Edge: collections made, listed, measured, optimized and removed."""

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import qdrant_edge as edge
import structlog

from deeplens_streams.errors import DeepLensError
from deeplens_streams.host.mapped_memory import mapped_bytes, share
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.vectors.base import Collection, collection_name
from deeplens_streams.vectors.collection_ref import (
    MARKER_FIELD,
    CollectionRef,
    is_of_other_tenancy,
    is_shared,
    owner_in,
    place_named,
    place_of,
    tenant_in,
)
from deeplens_streams.vectors.edge.damage import VectorsDamaged, is_of_engine
from deeplens_streams.vectors.edge.engine import RESERVE_BYTES, EdgeEngine
from deeplens_streams.vectors.edge.filters import to_filter
from deeplens_streams.vectors.edge.optimizer import EdgeOptimizing
from deeplens_streams.vectors.filters import Conditions, all_points
from deeplens_streams.vectors.validation import check_existing, check_limit
from models.collections import CollectionStatus

log = structlog.get_logger()

#: Points removed in one job.
_PAGE = 256


class EdgeCollections:
    """The part of `VectorStore` that is about whole collections.

    Parameters
    ----------
    folder : taken by this process at `start`, or at the first call.
    max_open : collections open at once.
    shared : whether tenants share one collection a model.
    reserve_bytes : free space on the folder's disk below which writes raise `StorageFull`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_open: int,
        shared: bool = False,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self._shared = shared
        self._engine = EdgeEngine(folder, max_open=max_open, reserve_bytes=reserve_bytes)
        self._optimizing = EdgeOptimizing(self._engine)

    async def start(self) -> None:
        """Take the folder.

        Raises
        ------
        ConfigurationError
            Another process has it, or it cannot be written.
        """
        names = await self._engine.run(self._engine.shards.names)
        others = [name for name in names if is_of_other_tenancy(name, shared=self._shared)]
        if others:
            log.warning(
                "vectors of another DEEPLENS_TENANCY are not searched; an audit with repair makes "
                "them anew",
                collections=len(others),
            )

    async def create(
        self, *, tenant: str, model: str, dimension: int, max_collections: int | None = None
    ) -> bool:
        place = self._place(tenant, model)
        name = collection_name(tenant=tenant, model=model)

        def make() -> bool:
            there = self._engine.shards.dimension(place.name)
            if there is not None:
                check_existing(name=name, dimension=there, asked=dimension)
            if self._is_there(place):
                return False
            check_limit(len(self._places(tenant)), max_collections)
            self._engine.check_room()
            shard = self._shard(place, dimension)
            if place.shared:
                marker = edge.Point(
                    place.marker_id, [1.0] + [0.0] * (dimension - 1), {MARKER_FIELD: tenant}
                )
                shard.update(edge.UpdateOperation.upsert_points([marker]))
                self._engine.shards.changed(place.name, [place.marker_id])
            return True

        return await self._engine.run(make)

    async def models_of(self, *, tenant: str) -> list[str]:
        check_tenant_id(tenant)
        places = await self._engine.run(partial(self._places, tenant))
        return sorted(place.model for place in places)

    async def tenants(self) -> list[str]:
        names = await self._engine.run(self._engine.shards.names)
        if not self._shared:
            return sorted({owner for owner in map(tenant_in, names) if owner is not None})
        found = set[str]()
        for name in filter(is_shared, names):
            after: edge.PointId | None = None
            while True:  # in steps, so that others get their turn
                owners, after = await self._engine.run(partial(self._owners, name, after))
                found |= owners
                if after is None:
                    break
        return sorted(found)

    async def describe(self, *, tenant: str, model: str) -> Collection | None:
        place = self._place(tenant, model)
        name = collection_name(tenant=tenant, model=model)

        def look() -> tuple[Collection, int] | None:
            try:
                found = self._figures(place, name) if self._is_there(place) else None
                if place.name not in self._engine.shards.damaged.names:
                    return found
                figures, total = found or (Collection(model, name, CollectionStatus.RED), 0)
                trouble = VectorsDamaged().message
                return replace(figures, status=CollectionStatus.RED, trouble=trouble), total
            except DeepLensError:
                raise
            except Exception as error:  # Edge has no class for what is damaged
                if not is_of_engine(error):
                    raise
                log.warning("a collection cannot be read", collection=name, reason=str(error)[:300])
                trouble = "The collection's files cannot be read; the log says why."
                return Collection(model, name, CollectionStatus.RED, trouble=trouble), 0

        seen = await self._engine.run(look)
        if seen is None:
            return None
        found, total = seen
        memory = await asyncio.to_thread(mapped_bytes, self._engine.folder / place.name)
        if memory is None or found.vectors is None:
            return found
        return replace(found, memory_bytes=share(memory, found.vectors, total))

    async def drop(self, *, tenant: str, model: str) -> bool:
        place = self._place(tenant, model)
        if not place.shared:
            await self._optimizing.cancel(place.name)
            return await self._engine.run(partial(self._drop, place))
        was_there = await self._engine.run(lambda: self._is_there(place))
        # In steps, so that others get their turn.
        while await self._engine.run(partial(self._drop_some, place)):
            pass
        return was_there

    async def optimize(self, *, tenant: str, model: str) -> bool:
        place = self._place(tenant, model)
        if not await self._engine.run(lambda: self._is_there(place)):
            return False
        self._optimizing.begin(place.name)
        return True

    async def damaged(self, *, tenant: str) -> list[str]:
        check_tenant_id(tenant)

        def look() -> list[str]:
            names = self._engine.shards.damaged.names
            places = [place_named(name, tenant=tenant, shared=self._shared) for name in names]
            return sorted(place.model for place in places if place is not None)

        return await self._engine.run(look)

    async def give_up_damaged(self, *, tenant: str, model: str) -> None:
        place = self._place(tenant, model)
        await self._engine.run(partial(self._engine.shards.damaged.give_up, place.name))

    async def ping(self) -> None:
        await self._engine.run(lambda: None)

    async def close(self) -> None:
        await self._optimizing.cancel()
        await self._engine.close()

    # In the engine's thread -----------------------------------------------------------------

    def _place(self, tenant: str, model: str) -> CollectionRef:
        return place_of(tenant=tenant, model=model, shared=self._shared)

    def _shard(self, place: CollectionRef, dimension: int) -> edge.EdgeShard:
        """Return the place's collection, made if need be."""
        shards = self._engine.shards
        return shards.get(place.name) or shards.create(
            place.name, dimension=dimension, shared=place.shared
        )

    def _places(self, tenant: str) -> list[CollectionRef]:
        places = [
            place_named(name, tenant=tenant, shared=self._shared)
            for name in self._engine.shards.names()
        ]
        return [place for place in places if place and self._is_there(place)]

    def _owners(
        self, name: str, after: "edge.PointId | None"
    ) -> tuple[set[str], "edge.PointId | None"]:
        """Return whose some points of a shared collection are, and what continues behind them."""
        shard = self._engine.shards.get(name)
        if shard is None:
            return set(), None
        request = edge.ScrollRequest(offset=after, limit=_PAGE, with_payload=True)
        points, following = shard.scroll(request)
        owners = {owner_in(point.payload or {}) for point in points}
        return {owner for owner in owners if owner is not None}, following

    def _is_there(self, place: CollectionRef) -> bool:
        if self._engine.shards.dimension(place.name) is None:
            return False
        if not place.shared:
            return True
        shard = self._engine.shards.get(place.name)
        return shard is not None and bool(
            shard.retrieve([place.marker_id], False, False) or _count(shard, all_points(place))
        )

    def _figures(self, place: CollectionRef, name: str) -> tuple[Collection, int] | None:
        """Return what Edge tells, and the points of the engine's collection.

        None where opening it shows that it is damaged, and so not there any more.
        """
        shards = self._engine.shards
        shard = shards.get(place.name)
        if shard is None:
            return None
        vectors, info = _count(shard, all_points(place)), shard.info()
        trouble = self._optimizing.troubles.get(place.name)
        status = CollectionStatus.RED if trouble else CollectionStatus.GREEN
        if self._optimizing.is_at(place.name):
            status = CollectionStatus.YELLOW
        total = max(info.points_count, vectors) if place.shared else vectors
        found = Collection(
            model=place.model,
            name=name,
            status=status,
            vectors=vectors,
            dimension=shards.dimension(place.name),
            indexed=share(min(info.indexed_vectors_count, total), vectors, total),
            trouble=trouble,
        )
        return found, total

    def _drop(self, place: CollectionRef) -> bool:
        there = self._engine.shards.dimension(place.name) is not None
        if there:
            self._engine.shards.drop(place.name)
        return self._engine.shards.damaged.remove(place.name) or there

    def _drop_some(self, place: CollectionRef) -> bool:
        """Remove some of a tenant's points from a shared collection; True if there were any."""
        shard = self._engine.shards.get(place.name)
        if shard is None:
            return False
        self._engine.check_room()
        wanted = to_filter(all_points(place))
        found, _ = shard.scroll(edge.ScrollRequest(limit=_PAGE, filter=wanted))
        ids: list[edge.PointId] = [each.id for each in found] or [place.marker_id]
        shard.update(edge.UpdateOperation.delete_points(ids))
        self._engine.shards.changed(place.name, [str(each) for each in ids])
        return bool(found)


def _count(shard: edge.EdgeShard, wanted: Conditions) -> int:
    return shard.count(edge.CountRequest(exact=True, filter=to_filter(wanted)))
