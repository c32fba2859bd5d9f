"""What there is on a Qdrant server: collections made, listed, measured, optimized and removed."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from deeplens_streams.errors import VectorsUnavailable
from deeplens_streams.host.mapped_memory import share
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.vectors.base import Collection, collection_name
from deeplens_streams.vectors.collection_ref import (
    MARKER_FIELD,
    TENANT_FIELD,
    CollectionRef,
    is_shared,
    owner_in,
    place_named,
    place_of,
    tenant_in,
)
from deeplens_streams.vectors.filters import FILE_NAME, TERMS, TIME_FIELD, Conditions, all_points
from deeplens_streams.vectors.qdrant.client import (
    CollectionExists,
    CollectionMissing,
    faults,
    to_filter,
)
from deeplens_streams.vectors.validation import check_existing, check_limit
from models.collections import CollectionStatus

#: The level of a server's telemetry at which it tells each shard's figures.
_DETAILS = 3
#: Points that are looked at together.
_PAGE = 1000


class ServerCollections:
    """The part of `VectorStore` that is about whole collections.

    Parameters
    ----------
    client : owned from now on.
    shared : whether tenants share one collection a model.
    """

    def __init__(self, client: AsyncQdrantClient, *, shared: bool = False) -> None:
        self._client = client
        self._shared = shared
        #: Of collections that were seen. One that is removed is seen to be gone at its next use.
        self._dimensions: dict[str, int] = {}
        #: So that a tenant's limit holds for requests at once; other workers' are not seen.
        self._making = asyncio.Lock()

    async def start(self) -> None:
        pass

    async def create(
        self, *, tenant: str, model: str, dimension: int, max_collections: int | None = None
    ) -> bool:
        place = self._place(tenant, model)
        name = collection_name(tenant=tenant, model=model)
        async with self._making:
            self._dimensions.pop(place.name, None)
            there = await self._dimension(place.name)
            if there is not None:
                check_existing(name=name, dimension=there, asked=dimension)
                if await self._has_part(place):
                    return False
            check_limit(len(await self.models_of(tenant=tenant)), max_collections)
            if there is None:
                made = await self._create(place, dimension)
                check_existing(name=name, dimension=made, asked=dimension)
            if place.shared:
                marker = models.PointStruct(
                    id=place.marker_id,
                    vector=[1.0] + [0.0] * (dimension - 1),
                    payload={MARKER_FIELD: tenant},
                )
                with faults():
                    await self._client.upsert(place.name, [marker], wait=True)
            return True

    async def models_of(self, *, tenant: str) -> list[str]:
        check_tenant_id(tenant)
        with faults():
            held = (await self._client.get_collections()).collections
        places = [place_named(each.name, tenant=tenant, shared=self._shared) for each in held]
        return sorted([each.model for each in places if each and await self._has_part(each)])

    async def tenants(self) -> list[str]:
        with faults():
            held = [each.name for each in (await self._client.get_collections()).collections]
        if not self._shared:
            return sorted({owner for owner in map(tenant_in, held) if owner is not None})
        found = set[str]()
        for name in filter(is_shared, held):
            with suppress(CollectionMissing):
                async with aclosing(self._owners(name)) as pages:
                    async for owners in pages:
                        found |= owners
        return sorted(found)

    async def describe(self, *, tenant: str, model: str) -> Collection | None:
        place = self._place(tenant, model)
        try:
            if not await self._has_part(place):
                return None
            with faults():
                info = await self._client.get_collection(place.name)
            vectors = await self._count(place.name, all_points(place))
        except CollectionMissing:
            return None
        total = max(info.points_count or 0, vectors) if place.shared else vectors
        found = Collection(
            model=model,
            name=collection_name(tenant=tenant, model=model),
            status=_status(info.status),
            vectors=vectors,
            dimension=_dimension(place.name, info),
            indexed=share(min(info.indexed_vectors_count or 0, total), vectors, total),
            trouble=_trouble(info.optimizer_status),
        )
        memory = await self._memory_bytes(place.name)
        return (
            found if memory is None else replace(found, memory_bytes=share(memory, vectors, total))
        )

    async def drop(self, *, tenant: str, model: str) -> bool:
        place = self._place(tenant, model)
        try:
            if not await self._has_part(place):
                return False
            with faults():
                if not place.shared:
                    self._dimensions.pop(place.name, None)
                    return await self._client.delete_collection(place.name)
                wanted = to_filter(all_points(place))
                assert wanted is not None, "it names the tenant"
                await self._client.delete(
                    place.name, models.FilterSelector(filter=wanted), wait=True
                )
                await self._client.delete(
                    place.name, models.PointIdsList(points=[place.marker_id]), wait=True
                )
        except CollectionMissing:
            return False
        return True

    async def optimize(self, *, tenant: str, model: str) -> bool:
        """Start the server's optimizers again; they run by themselves, too."""
        place = self._place(tenant, model)
        try:
            if not await self._has_part(place):
                return False
            with faults():
                await self._client.update_collection(
                    place.name, optimizers_config=models.OptimizersConfigDiff()
                )
        except CollectionMissing:
            return False
        return True

    async def damaged(self, *, tenant: str) -> list[str]:
        """What a server's collections lack is for the server to tell."""
        check_tenant_id(tenant)
        return []

    async def give_up_damaged(self, *, tenant: str, model: str) -> None:
        """There is nothing to give up."""

    async def ping(self) -> None:
        with faults():
            await self._client.get_collections()

    async def close(self) -> None:
        await self._client.close()

    def _place(self, tenant: str, model: str) -> CollectionRef:
        return place_of(tenant=tenant, model=model, shared=self._shared)

    async def _dimension(self, name: str) -> int | None:
        """Return how many numbers the collection's vectors have, or None if there is none."""
        known = self._dimensions.get(name)
        if known is not None:
            return known
        try:
            with faults():
                info = await self._client.get_collection(name)
        except CollectionMissing:
            return None
        size = self._dimensions[name] = _dimension(name, info)
        return size

    async def _create(self, place: CollectionRef, dimension: int) -> int:
        """Make the collection unless another worker does, and return its dimension."""
        # Where tenants share it, one graph for each that is large, and none for all.
        graphs = models.HnswConfigDiff(m=0, payload_m=16) if place.shared else None
        params = models.VectorParams(
            size=dimension, distance=models.Distance.COSINE, hnsw_config=graphs
        )
        indexes: dict[str, models.PayloadSchemaType | models.KeywordIndexParams] = {
            TERMS: models.PayloadSchemaType.KEYWORD,
            TIME_FIELD: models.PayloadSchemaType.DATETIME,
            # In strict mode a server refuses a filter by what has no index.
            FILE_NAME: models.KeywordIndexParams(
                type=models.KeywordIndexType.KEYWORD, on_disk=True
            ),
        }
        if place.shared:
            indexes[TENANT_FIELD] = models.KeywordIndexParams(
                type=models.KeywordIndexType.KEYWORD, is_tenant=True
            )
        try:
            with faults():
                await self._client.create_collection(place.name, vectors_config=params)
        except CollectionExists:
            pass
        with faults():
            for field, schema in indexes.items():
                await self._client.create_payload_index(place.name, field, schema)
        made = await self._dimension(place.name)
        if made is None:
            raise VectorsUnavailable
        return made

    async def _has_part(self, place: CollectionRef) -> bool:
        """Tell whether the tenant has this collection, or a part of it where it is shared."""
        try:
            if not place.shared:
                with faults():
                    return await self._client.collection_exists(place.name)
            if await self._count(place.name, Conditions(tenant=None, points=(place.marker_id,))):
                return True
            return await self._count(place.name, all_points(place)) > 0
        except CollectionMissing:
            return False

    async def _owners(self, name: str) -> AsyncGenerator[set[str]]:
        """Yield whose the points of a shared collection are, page by page.

        Counting them by an index would tell of the largest only, and of no marker.
        """
        after: models.ExtendedPointId | None = None
        while True:
            with faults():
                points, after = await self._client.scroll(
                    name, limit=_PAGE, offset=after, with_payload=[TENANT_FIELD, MARKER_FIELD]
                )
            owners = {owner_in(point.payload or {}) for point in points}
            yield {owner for owner in owners if owner is not None}
            if after is None:
                return

    async def _count(self, name: str, wanted: Conditions) -> int:
        with faults():
            counted = await self._client.count(name, count_filter=to_filter(wanted), exact=True)
        return counted.count

    async def _memory_bytes(self, name: str) -> int | None:
        """Return the bytes of vectors and payloads that the answering server has in use.

        None where it does not tell: an older or a busy one, a key that may not ask, the local mode.
        """
        try:
            told = await self._client.http.service_api.telemetry(
                details_level=_DETAILS, anonymize=False
            )
        except (ApiException, QdrantException, NotImplementedError):
            return None
        for each in (told.result.collections.collections if told.result else None) or []:
            if isinstance(each, models.CollectionTelemetry) and each.id == name:
                shards = [shard.local for shard in each.shards or [] if shard.local]
                return sum(
                    (local.vectors_size_bytes or 0) + (local.payloads_size_bytes or 0)
                    for local in shards
                )
        return None


def _dimension(name: str, info: models.CollectionInfo) -> int:
    vectors = info.config.params.vectors
    if not isinstance(vectors, models.VectorParams):
        raise VectorsUnavailable(
            f"The collection {name} was not made by this system; remove or rename it."
        )
    return vectors.size


def _status(status: models.CollectionStatus) -> CollectionStatus:
    if status is models.CollectionStatus.GREY:  # an optimization waits
        return CollectionStatus.YELLOW
    return CollectionStatus(status.value)


def _trouble(status: models.OptimizersStatus) -> str | None:
    if isinstance(status, models.OptimizersStatusOneOf1):
        return f"The last optimization failed: {status.error[:300]}"
    return None
