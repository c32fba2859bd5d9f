"""What there is: collections made, listed, measured, optimized and removed, on every engine and in
both tenancies.
"""

import asyncio

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from deeplens_streams.errors import (
    CollectionLimit,
    DimensionConflict,
    InvalidTenantId,
    UnknownModel,
)
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.vectors import VectorStore
from deeplens_streams.vectors.edge import collections as edge_collections
from deeplens_streams.vectors.qdrant import collections as server_collections
from deeplens_streams.vectors.qdrant.store import ServerVectors
from models.collections import CollectionStatus
from tests.support.vector_points import DIMENSION, HERE, NAME, THERE, point, settled, unit

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


# Making and listing --------------------------------------------------------------------------


async def test_a_made_collection_is_empty_and_there(vectors: VectorStore) -> None:
    assert await vectors.describe(**HERE) is None
    assert await vectors.create(**HERE, dimension=DIMENSION)
    assert not await vectors.create(**HERE, dimension=DIMENSION)
    assert await vectors.models_of(tenant=HERE["tenant"]) == ["resnet50"]
    found = await vectors.describe(**HERE)
    assert found is not None
    assert found.name == NAME
    assert (found.model, found.dimension) == ("resnet50", DIMENSION)
    assert (found.vectors, found.indexed, found.trouble) == (0, 0, None)
    assert found.status is CollectionStatus.GREEN
    assert await vectors.count(**HERE) == 0
    assert (await vectors.page(**HERE, limit=5)).images == []
    assert await vectors.search(unit(1), **HERE, limit=5, threshold=-1) == []


async def test_a_first_vector_makes_a_collection_like_any_other(vectors: VectorStore) -> None:
    await vectors.upsert([point(unit(1)), point(unit(2))], **HERE)
    assert not await vectors.create(**HERE, dimension=DIMENSION)
    found = await vectors.describe(**HERE)
    assert found is not None
    assert found.vectors == 2
    assert await vectors.models_of(tenant=HERE["tenant"]) == ["resnet50"]
    assert await vectors.models_of(tenant=THERE["tenant"]) == []


async def test_a_made_collection_takes_vectors(vectors: VectorStore) -> None:
    await vectors.create(**HERE, dimension=DIMENSION)
    stored = point(unit(1))
    await vectors.upsert([stored], **HERE)
    (hit,) = await vectors.search(unit(1), **HERE, limit=5, threshold=-1)
    assert (hit.image_id, hit.payload) == (stored.image_id, stored.payload)


async def test_another_dimension_is_a_conflict(vectors: VectorStore) -> None:
    await vectors.create(**HERE, dimension=DIMENSION)
    with pytest.raises(DimensionConflict, match=f"vectors of {DIMENSION} numbers, not 33"):
        await vectors.create(**HERE, dimension=33)


async def test_a_tenant_has_so_many_and_others_do_not_count(vectors: VectorStore) -> None:
    for model in ("a", "b"):
        await vectors.create(**HERE | {"model": model}, dimension=4, max_collections=2)
        await vectors.create(**THERE | {"model": model}, dimension=4, max_collections=2)
    with pytest.raises(CollectionLimit, match="2 of up to 2"):
        await vectors.create(**HERE | {"model": "c"}, dimension=4, max_collections=2)
    assert not await vectors.create(**HERE | {"model": "b"}, dimension=4, max_collections=2)
    assert await vectors.models_of(tenant=HERE["tenant"]) == ["a", "b"]
    await vectors.drop(**HERE | {"model": "a"})
    assert await vectors.create(**HERE | {"model": "c"}, dimension=4, max_collections=2)


async def test_everybody_who_has_a_collection_is_named(
    vectors: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (edge_collections, server_collections):
        monkeypatch.setattr(module, "_PAGE", 2)
    assert await vectors.tenants() == []
    for place in (HERE, HERE | {"model": "resnet50-old"}, {"tenant": "b-c", "model": "m.1"}):
        await vectors.upsert([point(unit(each)) for each in range(5)], **place)
    await vectors.create(**THERE, dimension=DIMENSION)
    assert await vectors.tenants() == ["acme-corp", "acmecorp", "b-c"]
    await vectors.drop(tenant="b-c", model="m.1")
    assert await vectors.tenants() == ["acme-corp", "acmecorp"]


async def test_requests_at_once_do_not_pass_the_limit(vectors: VectorStore) -> None:
    made = await asyncio.gather(
        *(
            vectors.create(**HERE | {"model": f"m{each}"}, dimension=4, max_collections=3)
            for each in range(8)
        ),
        return_exceptions=True,
    )
    assert sum(each is True for each in made) == 3
    assert sum(isinstance(each, CollectionLimit) for each in made) == 5


async def test_names_that_nobody_has(vectors: VectorStore) -> None:
    bad = [
        "",
        "..",
        "../x",
        "a_b",
        "Acme",
        "a" * 64,
        "acme\0",
        "\uff41cme",
        "\u0430cme",
        "con.",
        "a\n",
    ]
    for name in bad:
        with pytest.raises(InvalidTenantId):
            await vectors.create(tenant=name, model="resnet50", dimension=4)
        with pytest.raises(InvalidTenantId):
            await vectors.models_of(tenant=name)
    for name in ["", "..", "../x", "a_b", "R", "m" * 64, "m\0", "m/..", "%2e%2e", "m\n"]:
        for call in (vectors.describe, vectors.drop, vectors.optimize):
            with pytest.raises(UnknownModel):
                await call(tenant="acme", model=name)


# Removing ------------------------------------------------------------------------------------


async def test_a_removed_collection_is_gone_and_the_neighbours_stay(vectors: VectorStore) -> None:
    shared_image = new_image_id()
    places = [HERE, THERE, HERE | {"model": "resnet50-untrained"}]
    for place in places:
        await vectors.upsert([point(unit(1), imageId=shared_image), point(unit(2))], **place)
    assert await vectors.drop(**HERE)
    assert not await vectors.drop(**HERE)
    assert await vectors.describe(**HERE) is None
    assert [await vectors.count(**place) for place in places] == [0, 2, 2]
    assert await vectors.get_vector(**HERE, image_id=shared_image) is None
    assert await vectors.get_vector(**THERE, image_id=shared_image) is not None
    assert await vectors.models_of(tenant=HERE["tenant"]) == ["resnet50-untrained"]
    await vectors.upsert([point(unit(3))], **HERE)
    assert await vectors.count(**HERE) == 1


async def test_a_large_collection_is_removed_whole(vectors: VectorStore) -> None:
    await vectors.create(**HERE, dimension=DIMENSION)
    await vectors.upsert([point(unit(seed)) for seed in range(600)], **HERE)
    await vectors.upsert([point(unit(1))], **THERE)
    assert await vectors.drop(**HERE)
    assert await vectors.count(**HERE) == 0
    assert await vectors.models_of(tenant=HERE["tenant"]) == []
    assert await vectors.count(**THERE) == 1


# Tenants that share an image ID --------------------------------------------------------------


async def test_points_of_one_image_id_never_meet(vectors: VectorStore) -> None:
    """An image ID is nobody's secret: whoever forges another's must not reach its point."""
    image_id = new_image_id()
    await vectors.upsert([point(unit(1), imageId=image_id, fileName="ours")], **HERE)
    await vectors.upsert([point(unit(2), imageId=image_id, fileName="theirs")], **THERE)
    for place, seed, name in ((HERE, 1, "ours"), (THERE, 2, "theirs")):
        (hit,) = await vectors.search(unit(1), **place, limit=9, threshold=-1)
        assert hit.payload["fileName"] == name
        found = await vectors.get_vector(**place, image_id=image_id)
        assert found is not None
        np.testing.assert_allclose(found, unit(seed), atol=1e-6)
    await vectors.delete([image_id], **THERE)
    assert await vectors.present([image_id], **HERE) == {image_id}
    assert await vectors.present([image_id], **THERE) == set()


async def test_pages_are_of_one_tenant(vectors: VectorStore) -> None:
    ours, theirs = ([point(unit(seed)) for seed in range(7)] for _ in range(2))
    await vectors.create(**HERE, dimension=DIMENSION)
    await vectors.upsert(ours, **HERE)
    await vectors.upsert(theirs, **THERE)
    for place, stored in ((HERE, ours), (THERE, theirs)):
        found, after = [], None
        while True:
            page = await vectors.page(**place, limit=3, after=after)
            found += [image_id for image_id, _ in page.images]
            if (after := page.after) is None:
                break
        assert sorted(found) == sorted(each.image_id for each in stored)


async def test_shared_figures_are_the_tenants_own(vectors: VectorStore) -> None:
    await vectors.upsert([point(unit(seed)) for seed in range(30)], **HERE)
    await vectors.upsert([point(unit(seed)) for seed in range(10)], **THERE)
    ours, theirs = await vectors.describe(**HERE), await vectors.describe(**THERE)
    assert ours is not None
    assert theirs is not None
    assert (ours.vectors, theirs.vectors) == (30, 10)
    assert ours.name != theirs.name


# Optimizing ----------------------------------------------------------------------------------


async def test_optimizing_changes_nothing_that_anybody_sees(vectors: VectorStore) -> None:
    assert not await vectors.optimize(**HERE)
    stored = [point(unit(seed)) for seed in range(20)]
    await vectors.upsert(stored, **HERE)
    assert await vectors.optimize(**HERE)
    await settled(vectors)
    assert await vectors.count(**HERE) == 20
    (hit,) = await vectors.search(unit(3), **HERE, limit=1, threshold=0.9)
    assert hit.payload == stored[3].payload


# Qdrant server -------------------------------------------------------------------------------


async def test_a_shared_collection_on_a_server_is_indexed_by_tenant() -> None:
    client = AsyncQdrantClient(":memory:")
    vectors = ServerVectors(client, shared=True)
    await vectors.upsert([point(unit(1))], **HERE)
    await vectors.upsert([point(unit(1))], **THERE)
    held = (await client.get_collections()).collections
    assert [each.name for each in held] == ["shared_resnet50_vectors"]
    (records, _) = await client.scroll("shared_resnet50_vectors", with_payload=True)
    owners = sorted((each.payload or {})["_tenant"] for each in records)
    assert owners == ["acme-corp", "acmecorp"]
    await vectors.close()
