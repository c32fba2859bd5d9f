"""What a vector engine does, the same in memory, in Qdrant Edge and through Qdrant's client, and
whether each tenant has collections of its own or all share them.

Qdrant's client runs here on its own local mode, which takes the same calls as a server; a
server itself is not part of the test dependencies.
"""

import asyncio
import sys
import threading
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from qdrant_client import AsyncQdrantClient

from deeplens_streams.config import Settings
from deeplens_streams.errors import (
    BadRequest,
    ConfigurationError,
    DimensionMismatch,
    InvalidTenantId,
    StorageFull,
    UnknownModel,
    VectorsUnavailable,
)
from deeplens_streams.host.ports import free_port
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.testing.vectors import MemoryVectors
from deeplens_streams.vectors import SearchFilter, VectorStore, open_vectors
from deeplens_streams.vectors.collection_ref import place_of
from deeplens_streams.vectors.edge.store import EdgeVectors
from deeplens_streams.vectors.filters import TERMS, stored_payload
from deeplens_streams.vectors.qdrant.client import connect
from deeplens_streams.vectors.qdrant.store import ServerVectors
from tests.support.vector_points import DIMENSION, HERE, point, unit

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


def toward(axis: int, cosine: float) -> npt.NDArray[np.float32]:
    """Return a unit vector at `cosine` to the first axis."""
    row = np.zeros(DIMENSION, dtype=np.float32)
    row[0], row[axis] = cosine, np.sqrt(1 - cosine**2)
    return row


AHEAD = toward(1, 1.0)


async def names(vectors: VectorStore, where: SearchFilter) -> list[str]:
    hits = await vectors.search(AHEAD, **HERE, limit=50, threshold=-1, where=where)
    return sorted(hit.payload["fileName"] for hit in hits)


# Storing -------------------------------------------------------------------------------------


async def test_a_point_comes_back_as_it_was(vectors: VectorStore) -> None:
    stored = point(unit(1), tags={"place": "北京", "a.b": "c"}, uploadedBy="ann")
    await vectors.upsert([stored, point(unit(2))], **HERE)
    (hit,) = await vectors.search(unit(1), **HERE, limit=1, threshold=0.5)
    assert hit.image_id == stored.image_id
    assert hit.payload == stored.payload
    assert hit.score == pytest.approx(1, abs=1e-5)
    assert -1 <= hit.score <= 1
    found = await vectors.get_vector(**HERE, image_id=stored.image_id)
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, unit(1), atol=1e-6)


async def test_those_that_are_there_are_told_from_those_that_are_not(vectors: VectorStore) -> None:
    stranger = new_image_id()
    assert await vectors.present([stranger], **HERE) == set()
    stored = [point(unit(1)), point(unit(2))]
    await vectors.upsert(stored, **HERE)
    ids = [each.image_id for each in stored]
    assert await vectors.present([*ids, stranger], **HERE) == set(ids)
    assert await vectors.present([], **HERE) == set()


async def test_a_point_tells_which_preprocessing_made_it(vectors: VectorStore) -> None:
    assert await vectors.preprocessing([new_image_id()], **HERE) == {}
    told: list[dict[str, Any]] = [{}, {"preprocessingVersion": None}]
    told += [{"preprocessingVersion": each} for each in ("1", True, 3)]
    stored = [point(unit(number), **each) for number, each in enumerate(told, start=1)]
    await vectors.upsert(stored, **HERE)
    ids = [each.image_id for each in stored]
    found = await vectors.preprocessing([*ids, new_image_id()], **HERE)
    assert found == dict(zip(ids, [0, 0, 0, 0, 3], strict=True))


async def test_a_point_comes_back_as_it_was_stored(vectors: VectorStore) -> None:
    assert await vectors.get_point(**HERE, image_id=new_image_id()) is None
    stored = point(unit(1), tags={"a": "b"}, uploadedBy=None)
    await vectors.upsert([stored, point(unit(2))], **HERE)
    found = await vectors.get_point(**HERE, image_id=stored.image_id)
    assert found is not None
    assert (found.image_id, found.payload) == (stored.image_id, stored.payload)
    assert np.abs(found.vector - stored.vector).max() < 1e-6


async def test_a_payload_that_names_no_image_spoils_no_page(vectors: VectorStore) -> None:
    kept, damaged = point(unit(1)), [point(unit(2)), point(unit(3)), point(unit(4))]
    others: list[dict[str, Any]] = [{"imageId": None}, {"imageId": "?"}, {"uploadedAt": None}]
    for each, other in zip(damaged, others, strict=True):
        each.payload.update(other)
    await vectors.upsert([kept, *damaged], **HERE)
    page = await vectors.page(**HERE, limit=9)
    assert len(page.damaged) == 2
    assert sorted(page.images) == sorted(
        [(kept.image_id, kept.payload["uploadedAt"]), (damaged[2].image_id, "")]
    )
    asked = [each.image_id for each in (kept, *damaged)]
    assert {kept.image_id, damaged[2].image_id} <= await vectors.present(asked, **HERE)


async def test_every_point_is_on_one_page(vectors: VectorStore) -> None:
    empty = await vectors.page(**HERE, limit=3)
    assert (empty.images, empty.after) == ([], None)
    stored = [point(unit(1)) for _ in range(8)]
    await vectors.upsert(stored, **HERE)
    found: list[tuple[str, str]] = []
    after = None
    while True:
        page = await vectors.page(**HERE, limit=3, after=after)
        assert len(page.images) <= 3
        found += page.images
        after = page.after
        if after is None:
            break
    expected = [(each.image_id, each.payload["uploadedAt"]) for each in stored]
    assert sorted(found) == sorted(expected)


async def test_a_repeat_replaces(vectors: VectorStore) -> None:
    first = point(unit(1))
    for _ in range(3):
        await vectors.upsert([first], **HERE)
    assert await vectors.count(**HERE) == 1
    again = point(unit(2), imageId=first.image_id, fileName="new.jpg")
    await vectors.upsert([again], **HERE)
    (hit,) = await vectors.search(unit(2), **HERE, limit=5, threshold=-1)
    assert hit.payload["fileName"] == "new.jpg"
    assert hit.score == pytest.approx(1, abs=1e-5)


async def test_many_points_at_once(vectors: VectorStore) -> None:
    points = [point(unit(seed)) for seed in range(300)]
    await vectors.upsert(points, **HERE)
    await vectors.upsert([], **HERE)
    assert await vectors.count(**HERE) == 300


async def test_first_upserts_at_once_make_one_collection(vectors: VectorStore) -> None:
    await asyncio.gather(*(vectors.upsert([point(unit(seed))], **HERE) for seed in range(20)))
    assert await vectors.count(**HERE) == 20


async def test_deleted_points_are_gone(vectors: VectorStore) -> None:
    gone, kept = point(unit(1)), point(unit(2))
    await vectors.upsert([gone, kept], **HERE)
    for _ in range(2):
        await vectors.delete([gone.image_id, new_image_id()], **HERE)
        assert await vectors.count(**HERE) == 1
    assert await vectors.get_vector(**HERE, image_id=gone.image_id) is None
    hits = await vectors.search(unit(1), **HERE, limit=5, threshold=-1)
    assert [hit.image_id for hit in hits] == [kept.image_id]


async def test_a_collection_that_does_not_exist_is_empty(vectors: VectorStore) -> None:
    assert await vectors.search(unit(1), **HERE, limit=5, threshold=-1) == []
    assert await vectors.get_vector(**HERE, image_id=new_image_id()) is None
    assert await vectors.count(**HERE) == 0
    await vectors.delete([new_image_id()], **HERE)
    await vectors.ping()


async def test_a_vector_of_another_length_is_refused(vectors: VectorStore) -> None:
    await vectors.upsert([point(unit(1))], **HERE)
    with pytest.raises(DimensionMismatch, match="33"):
        await vectors.upsert([point(unit(1, 33))], **HERE)
    with pytest.raises(DimensionMismatch, match="33"):
        await vectors.upsert([point(unit(1)), point(unit(1, 33))], **HERE)
    with pytest.raises(DimensionMismatch, match="33"):
        await vectors.search(unit(1, 33), **HERE, limit=1, threshold=0)
    assert await vectors.count(**HERE) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
async def test_a_vector_without_a_direction_is_refused(vectors: VectorStore, bad: float) -> None:
    vector = np.full(DIMENSION, bad, dtype=np.float32)
    with pytest.raises(DimensionMismatch):
        await vectors.upsert([point(vector)], **HERE)
    with pytest.raises(DimensionMismatch):
        await vectors.search(vector, **HERE, limit=1, threshold=0)


# Tenants -------------------------------------------------------------------------------------


async def test_tenants_and_models_never_meet(vectors: VectorStore) -> None:
    places: list[dict[str, Any]] = [
        {"tenant": tenant, "model": model}
        for tenant in ("acme-corp", "acmecorp", "acme")
        for model in ("resnet50", "resnet50-untrained")
    ]
    points = [point(unit(1), fileName=f"{index}.jpg") for index in range(len(places))]
    for place, each in zip(places, points, strict=True):
        await vectors.upsert([each], **place)
    for place, each in zip(places, points, strict=True):
        (hit,) = await vectors.search(unit(1), **place, limit=50, threshold=-1)
        assert hit.payload["fileName"] == each.payload["fileName"]
        assert await vectors.count(**place) == 1
        for other in points:
            found = await vectors.get_vector(**place, image_id=other.image_id)
            assert (found is not None) == (other is each)
    await vectors.delete([each.image_id for each in points], **places[0])
    assert [await vectors.count(**place) for place in places] == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("tenant", ["", "..", "../x", "a/b", "Acme", "a_b"])
async def test_no_collection_without_a_tenant(vectors: VectorStore, tenant: str) -> None:
    place: dict[str, Any] = {"tenant": tenant, "model": "resnet50"}
    with pytest.raises(InvalidTenantId):
        await vectors.upsert([point(unit(1))], **place)
    with pytest.raises(InvalidTenantId):
        await vectors.search(unit(1), **place, limit=1, threshold=0)
    with pytest.raises(UnknownModel):
        await vectors.count(tenant="acme", model=f"x_{tenant}/..")


# Searching -----------------------------------------------------------------------------------


async def test_hits_come_best_first_down_to_the_threshold(vectors: VectorStore) -> None:
    cosines = [0.9, -0.5, 0.3, 1.0, 0.71, 0.69]
    await vectors.upsert(
        [
            point(toward(axis, cosine), fileName=str(cosine))
            for axis, cosine in enumerate(cosines, 1)
        ],
        **HERE,
    )

    async def found(limit: int, threshold: float) -> list[str]:
        hits = await vectors.search(AHEAD, **HERE, limit=limit, threshold=threshold)
        assert all(hit.score >= threshold for hit in hits)
        for hit in hits:
            assert hit.score == pytest.approx(float(hit.payload["fileName"]), abs=1e-5)
        return [hit.payload["fileName"] for hit in hits]

    assert await found(50, 0.7) == ["1.0", "0.9", "0.71"]
    assert await found(2, 0.7) == ["1.0", "0.9"]
    assert await found(50, -1) == ["1.0", "0.9", "0.71", "0.69", "0.3", "-0.5"]
    assert await found(50, 0) == ["1.0", "0.9", "0.71", "0.69", "0.3"]


async def test_every_engine_agrees_with_the_exact_one(vectors: VectorStore) -> None:
    exact = MemoryVectors()
    points = [point(unit(seed)) for seed in range(200)]
    await vectors.upsert(points, **HERE)
    await exact.upsert(points, **HERE)
    for seed in range(1000, 1010):
        hits = await vectors.search(unit(seed), **HERE, limit=10, threshold=-1)
        expected = await exact.search(unit(seed), **HERE, limit=10, threshold=-1)
        assert [hit.image_id for hit in hits] == [hit.image_id for hit in expected]
        np.testing.assert_allclose(
            [hit.score for hit in hits], [hit.score for hit in expected], atol=1e-5
        )


async def test_the_query_itself_can_be_left_out(vectors: VectorStore) -> None:
    own, other = point(AHEAD), point(toward(1, 0.9))
    await vectors.upsert([own, other], **HERE)
    where = SearchFilter(exclude_image_id=own.image_id)
    hits = await vectors.search(AHEAD, **HERE, limit=1, threshold=0, where=where)
    assert [hit.image_id for hit in hits] == [other.image_id]


async def test_filters_by_field(vectors: VectorStore) -> None:
    await vectors.upsert(
        [
            point(AHEAD, fileName="one.jpg", uploadedBy="ann"),
            point(AHEAD, fileName="two words.png", contentType="image/png", uploadedBy="bob"),
            point(AHEAD, fileName="three.png", contentType="image/png"),
        ],
        **HERE,
    )

    async def found(**equals: list[str]) -> list[str]:
        return await names(vectors, SearchFilter(equals=equals))

    assert await found(fileName=["two words.png"]) == ["two words.png"]
    assert await found(fileName=["two"]) == []
    assert await found(contentType=["image/png"]) == ["three.png", "two words.png"]
    assert await found(contentType=["image/png", "image/jpeg", "x"]) == [
        "one.jpg",
        "three.png",
        "two words.png",
    ]
    assert await found(uploadedBy=["ann", "bob"]) == ["one.jpg", "two words.png"]
    assert await found(uploadedBy=["ann"], contentType=["image/png"]) == []
    assert await found(uploadedBy=["None"]) == []
    assert await found(uploadedBy=[]) == []


async def test_file_names_that_share_a_term_are_told_apart(vectors: VectorStore) -> None:
    place = place_of(**HERE, shared=False)

    def term(name: str) -> Any:
        return stored_payload({"fileName": name}, place)[TERMS]

    alike = (name for i in range(100_000) if term(name := f"{i}.jpg") == term("0.jpg"))
    first, second, absent = islice(alike, 3)
    await vectors.upsert([point(AHEAD, fileName=name) for name in (first, second, "x")], **HERE)
    for asked, expected in (
        ([first], [first]),
        ([second, "x"], [second, "x"]),
        ([first, second], [first, second]),
        ([absent], []),
    ):
        assert await names(vectors, SearchFilter(equals={"fileName": asked})) == sorted(expected)
    where = SearchFilter(equals={"fileName": [first], "contentType": ["image/png"]})
    assert await names(vectors, where) == []


async def test_filters_by_any_tag(vectors: VectorStore) -> None:
    odd = ["a.b", 'a"b', "a[0]", "a[]", "a=b", "北京", " ", "tags.a", "a\\", "_terms", "a\x1fb"]
    await vectors.upsert(
        [
            *(point(AHEAD, fileName=f"{i}", tags={key: "v.1"}) for i, key in enumerate(odd)),
            point(AHEAD, fileName="split", tags={"a": "b=v.1", "fileName": "none"}),
            point(AHEAD, fileName="both", tags={"x": "1", "y": "2"}),
            point(AHEAD, fileName="none", tags={}),
        ],
        **HERE,
    )
    for i, key in enumerate(odd):
        where = SearchFilter(equals={f"tags.{key}": ["v.1", "other"]})
        assert await names(vectors, where) == [f"{i}"]
        assert await names(vectors, SearchFilter(equals={f"tags.{key}": ["v"]})) == []
    assert await names(vectors, SearchFilter(equals={"fileName": ["none"]})) == ["none"]
    for y, expected in (("2", ["both"]), ("1", [])):
        where = SearchFilter(equals={"tags.x": ["1"], "tags.y": [y]})
        assert await names(vectors, where) == expected


async def test_filters_by_time(vectors: VectorStore) -> None:
    for hour in (10, 11, 12):
        uploaded = f"2025-03-09T{hour}:00:00.500Z"
        await vectors.upsert([point(AHEAD, fileName=str(hour), uploadedAt=uploaded)], **HERE)

    async def found(since: str | None, before: str | None) -> list[str]:
        return await names(vectors, SearchFilter(uploaded_from=since, uploaded_before=before))

    assert await found("2025-03-09T11:00:00.500Z", None) == ["11", "12"]
    assert await found("2025-03-09T11:00:00.501Z", None) == ["12"]
    assert await found(None, "2025-03-09T11:00:00.500Z") == ["10"]
    assert await found("2025-03-09T10:00:00.500Z", "2025-03-09T12:00:00.500Z") == ["10", "11"]
    assert await found("2025-03-09T12:00:00.500+01:00", "2025-03-09T12:00:00.500Z") == ["11"]


@pytest.mark.parametrize(
    "where",
    [
        SearchFilter(equals={"imageId": ["x"]}),
        SearchFilter(equals={"tags.": ["x"]}),
        SearchFilter(equals={"tags": ["x"]}),
        SearchFilter(equals={"fileName": "one.jpg"}),
        SearchFilter(equals={"fileName": [1]}),  # type: ignore[list-item]  # what a client sends
        SearchFilter(equals={"fileName": 1}),  # type: ignore[dict-item]  # as above
        SearchFilter(equals={"fileName": ["\ud800"]}),
        SearchFilter(uploaded_from="yesterday"),
        SearchFilter(uploaded_before="2025-03-09T12:00:00"),
    ],
)
async def test_a_filter_that_cannot_be_is_refused(
    vectors: VectorStore, where: SearchFilter
) -> None:
    await vectors.upsert([point(unit(1))], **HERE)
    with pytest.raises(BadRequest):
        await vectors.search(unit(1), **HERE, limit=1, threshold=0, where=where)


# Qdrant Edge ---------------------------------------------------------------------------------


async def test_edge_keeps_its_points_over_a_restart(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    stored = point(unit(1), tags={"a.b": "c"})
    for expected in (0, 1, 1):
        vectors = open_vectors(settings)
        assert await vectors.count(**HERE) == expected
        await vectors.upsert([stored], **HERE)
        await vectors.close()
        await vectors.close()
    assert (tmp_path / "vectors" / "tenant_acme-corp_resnet50_vectors").is_dir()


async def test_edge_opens_only_so_many_collections(tmp_path: Path) -> None:
    vectors = EdgeVectors(tmp_path, max_open=3)
    tenants = [f"tenant-{index}" for index in range(12)]
    threads = threading.active_count()

    async def use(tenant: str, seed: int) -> None:
        await vectors.upsert([point(unit(seed))], tenant=tenant, model="resnet50")
        assert len(vectors._engine.shards.open_names) <= 3

    await asyncio.gather(*(use(tenant, seed) for seed in range(5) for tenant in tenants))
    for tenant in tenants:
        assert await vectors.count(tenant=tenant, model="resnet50") == 5
    last = [f"tenant_{tenant}_resnet50_vectors" for tenant in tenants[-3:]]
    assert vectors._engine.shards.open_names == last
    held = _files_below(tmp_path)
    assert all(tenant in str(held) for tenant in tenants[-3:])
    assert not any(f"{tenant}_resnet50" in str(held) for tenant in tenants[:-3])
    await vectors.close()
    assert _files_below(tmp_path) == []
    assert threading.active_count() == threads


def _files_below(folder: Path) -> list[Path]:
    """Return the files below `folder` that this process has open or mapped."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("open files can be seen on Linux only")
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split(maxsplit=5)[-1] for line in lines]
    opened = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            opened.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return sorted({Path(name) for name in (*mapped, *opened) if name.startswith(f"{folder}/")})


async def test_edge_forgets_a_collection_half_made(tmp_path: Path) -> None:
    half = tmp_path / "tenant_acme-corp_resnet50_vectors.new" / "segments"
    half.mkdir(parents=True)
    (half / "rubbish").write_bytes(b"x")
    vectors = EdgeVectors(tmp_path, max_open=1)
    assert await vectors.count(**HERE) == 0
    await vectors.upsert([point(unit(1))], **HERE)
    assert await vectors.count(**HERE) == 1
    await vectors.close()
    assert not half.exists()


async def test_a_damaged_edge_collection_is_an_error_not_an_empty_success(tmp_path: Path) -> None:
    (tmp_path / "tenant_acme-corp_resnet50_vectors").mkdir()
    vectors = EdgeVectors(tmp_path, max_open=1)
    with pytest.raises(VectorsUnavailable) as caught:
        await vectors.search(unit(1), **HERE, limit=1, threshold=0)
    assert str(tmp_path) not in str(caught.value)
    await vectors.upsert([point(unit(1))], tenant="other", model="resnet50")
    await vectors.close()
    with pytest.raises(VectorsUnavailable):
        await vectors.ping()


_WRITER = """
import asyncio, sys
from pathlib import Path
import numpy as np
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.vectors import VectorPoint
from deeplens_streams.vectors.edge.store import EdgeVectors

async def main():
    vectors = EdgeVectors(Path(sys.argv[1]), max_open=2)
    random = np.random.default_rng(1)
    while True:
        image_id = new_image_id()
        vector = random.normal(size=256).astype(np.float32)
        point = VectorPoint(image_id, vector, {"imageId": image_id})
        await vectors.upsert([point], tenant="acme-corp", model="resnet50")
        print(image_id, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("acknowledged", [1, 100, 700])
async def test_edge_keeps_what_it_acknowledged_when_killed(
    tmp_path: Path, acknowledged: int
) -> None:
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITER, tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    written = [await writer.stdout.readline() for _ in range(acknowledged)]
    second = EdgeVectors(tmp_path, max_open=1)
    with pytest.raises(ConfigurationError, match="is in use by process") as caught:
        await second.start()
    assert str(tmp_path) in caught.value.message
    await second.close()
    writer.kill()
    rest, _ = await writer.communicate()
    written += [line for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]

    vectors = EdgeVectors(tmp_path, max_open=1)
    for line in written:
        image_id = line.decode().strip()
        assert await vectors.get_vector(**HERE, image_id=image_id) is not None
    assert await vectors.count(**HERE) >= len(written)
    await vectors.close()


async def test_an_unwritable_edge_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    vectors = EdgeVectors(tmp_path / "file", max_open=1)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        await vectors.start()
    await vectors.close()


async def test_edge_writes_nothing_on_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    vectors = EdgeVectors(tmp_path, max_open=1)
    stored = point(unit(1))
    await vectors.upsert([stored], **HERE)
    await vectors.close()
    vectors = EdgeVectors(tmp_path, max_open=1, reserve_bytes=2**62)
    with pytest.raises(StorageFull):
        await vectors.upsert([point(unit(2))], **HERE)
    with pytest.raises(StorageFull):
        await vectors.delete([stored.image_id], **HERE)
    (hit,) = await vectors.search(unit(1), **HERE, limit=5, threshold=-1)
    assert hit.image_id == stored.image_id
    await vectors.close()


# Qdrant server -------------------------------------------------------------------------------


async def test_a_server_that_is_away_is_unavailable() -> None:
    vectors = ServerVectors(connect(f"http://127.0.0.1:{free_port()}", "a key"))
    for call in (
        vectors.ping(),
        vectors.upsert([point(unit(1))], **HERE),
        vectors.search(unit(1), **HERE, limit=1, threshold=0),
        vectors.get_vector(**HERE, image_id=new_image_id()),
        vectors.delete([new_image_id()], **HERE),
        vectors.count(**HERE),
    ):
        with pytest.raises(VectorsUnavailable):
            await call
    await vectors.close()


async def test_a_collection_removed_behind_the_back_is_made_again() -> None:
    client = AsyncQdrantClient(":memory:")
    vectors = ServerVectors(client)
    await vectors.upsert([point(unit(1))], **HERE)
    await client.delete_collection("tenant_acme-corp_resnet50_vectors")
    assert await vectors.search(unit(1), **HERE, limit=1, threshold=0) == []
    await vectors.upsert([point(unit(1))], **HERE)
    await client.delete_collection("tenant_acme-corp_resnet50_vectors")
    await vectors.upsert([point(unit(1))], **HERE)
    assert await vectors.count(**HERE) == 1
    await vectors.close()
