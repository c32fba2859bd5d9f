"""Qdrant Edge's collections on the disk: optimized as a copy, swapped, removed, recovered."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as edge
import structlog

from deeplens_streams.circuit_breaker import TRIES, Breakers
from deeplens_streams.errors import StorageFull, VectorsRefused, VectorsUnavailable
from deeplens_streams.host import malloc
from deeplens_streams.vectors import VectorPoint, VectorStore
from deeplens_streams.vectors.edge import damage as edge_damage
from deeplens_streams.vectors.edge import optimizer, shards
from deeplens_streams.vectors.edge.damage import VectorsDamaged
from deeplens_streams.vectors.edge.store import EdgeVectors
from models.collections import CollectionStatus
from tests.support.vector_points import HERE, NAME, THERE, point, settled, unit
from tests.support.web_server import until


def folders(below: Path) -> list[str]:
    return [each.name for each in below.iterdir() if each.is_dir()]


async def crowd(vectors: VectorStore, count: int, dimension: int = 1024) -> list[VectorPoint]:
    """Store enough for Edge to index: more than 10,000 KB of vectors."""
    points = [point(unit(seed, dimension), fileName=f"{seed}.jpg") for seed in range(count)]
    await vectors.upsert(points, **HERE)
    return points


async def test_freed_memory_is_given_back_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    monkeypatch.setattr(malloc, "_malloc_trim", kept.append)
    vectors = EdgeVectors(tmp_path, max_open=1)
    await crowd(vectors, shards.FLUSH_EVERY - 1, 8)
    assert kept == []
    await crowd(vectors, 2 * shards.FLUSH_EVERY, 8)
    assert kept == [0, 0]
    await vectors.close()


async def test_edge_optimizes_while_it_is_written_and_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = EdgeVectors(tmp_path, max_open=2)
    stored = await crowd(vectors, 3000)
    before = await vectors.describe(**HERE)
    assert before is not None
    assert (before.vectors, before.indexed) == (3000, 0)
    changed = asyncio.Event()
    work = optimizer._optimized

    async def held(copy: Path) -> bool:
        found = await work(copy)
        await changed.wait()
        return found

    monkeypatch.setattr(optimizer, "_optimized", held)
    assert await vectors.optimize(**HERE)
    assert await vectors.optimize(**HERE)  # the same one
    await until(vectors._engine.shards.copy_path(NAME).exists, 30)
    during = await vectors.describe(**HERE)
    assert during is not None
    assert during.status is CollectionStatus.YELLOW
    # All kinds of changes, and enough for several batches.
    await vectors.delete([each.image_id for each in stored[:100]], **HERE)
    new = [point(unit(seed, 1024), fileName="new") for seed in range(10_000, 10_150)]
    await vectors.upsert(new, **HERE)
    again = point(unit(7, 1024), imageId=stored[200].image_id, fileName="again")
    await vectors.upsert([again], **HERE)
    # Others come and go meanwhile, and push the collection out of the cache.
    for tenant in ("a", "b", "c"):
        await vectors.upsert([point(unit(1))], tenant=tenant, model="resnet50")
    changed.set()
    await settled(vectors)

    after = await vectors.describe(**HERE)
    assert after is not None
    assert (after.status, after.trouble) == (CollectionStatus.GREEN, None)
    assert after.vectors == 3050
    assert after.indexed is not None
    assert after.indexed >= 3000 - 101
    assert after.memory_bytes is None or after.memory_bytes > 1024
    gone = [each.image_id for each in stored[:100]]
    assert await vectors.present(gone, **HERE) == set()
    kept = [each.image_id for each in (*stored[100:], *new)]
    assert await vectors.present(kept, **HERE) == set(kept)
    replaced = await vectors.get_vector(**HERE, image_id=again.image_id)
    assert replaced is not None
    np.testing.assert_allclose(replaced, unit(7, 1024), atol=1e-5)
    (hit,) = await vectors.search(unit(10_001, 1024), **HERE, limit=1, threshold=0.9)
    assert hit.payload == new[1].payload
    await vectors.close()
    assert [each for each in folders(tmp_path) if "acme-corp" in each] == [NAME]
    vectors = EdgeVectors(tmp_path, max_open=2)
    assert await vectors.count(**HERE) == 3050
    await vectors.close()


async def test_edge_says_what_went_wrong_and_keeps_the_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = EdgeVectors(tmp_path, max_open=2)
    await vectors.upsert([point(unit(1))], **HERE)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    await vectors.optimize(**HERE)
    await settled(vectors)
    found = await vectors.describe(**HERE)
    assert found is not None
    assert found.status is CollectionStatus.RED
    assert "failed" in (found.trouble or "")
    monkeypatch.undo()
    await vectors.optimize(**HERE)
    await settled(vectors)
    found = await vectors.describe(**HERE)
    assert found is not None
    assert (found.status, found.vectors) == (CollectionStatus.GREEN, 1)
    await vectors.close()


async def test_edge_optimizes_nothing_on_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    vectors = EdgeVectors(tmp_path, max_open=1)
    await vectors.upsert([point(unit(1))], **HERE)
    await vectors.close()
    vectors = EdgeVectors(tmp_path, max_open=1, reserve_bytes=2**62)
    await vectors.optimize(**HERE)
    await settled(vectors)
    found = await vectors.describe(**HERE)
    assert found is not None
    assert "no room" in (found.trouble or "")
    with pytest.raises(StorageFull):
        await vectors.create(**THERE, dimension=4)
    await vectors.close()


@pytest.mark.parametrize("stop", ["close", "drop"])
async def test_edge_stops_an_optimization_that_is_not_wanted_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    begun = asyncio.Event()

    async def forever(_copy: Path) -> bool:
        begun.set()
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(optimizer, "_optimized", forever)
    vectors = EdgeVectors(tmp_path, max_open=1)
    await vectors.upsert([point(unit(1))], **HERE)
    await vectors.optimize(**HERE)
    await begun.wait()
    if stop == "drop":
        assert await vectors.drop(**HERE)
    await vectors.close()
    assert folders(tmp_path) == ([] if stop == "drop" else [NAME])


async def test_a_damaged_collection_is_red(tmp_path: Path) -> None:
    vectors = EdgeVectors(tmp_path, max_open=1)
    await vectors.upsert([point(unit(1))], **HERE)
    await vectors.close()
    for each in (tmp_path / NAME / "segments").rglob("*.json"):
        each.write_bytes(b"rubbish")
    vectors = EdgeVectors(tmp_path, max_open=1)
    for _ in range(2):
        found = await vectors.describe(**HERE)
        assert found is not None
        assert (found.status, found.vectors) == (CollectionStatus.RED, None)
        assert found.trouble is not None
        assert str(tmp_path) not in found.trouble
    assert await vectors.drop(**HERE)
    await vectors.close()
    assert folders(tmp_path) == []


def _lose(file: Path) -> None:
    file.unlink()


def _empty(file: Path) -> None:
    os.truncate(file, 0)


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("damage", [_lose, _empty, _cut])
@pytest.mark.parametrize(
    "pattern",
    [
        "**/*",
        "edge_config.json",
        "wal/first-index",
        "segments/*/segment.json",
        "segments/*/version.info",
        "segments/*/payload_storage/*",
        "segments/*/vector_storage/vectors/chunk_0.mmap",
        "segments/*/vector_storage/*/status.dat",
    ],
)
async def test_whatever_is_damaged_new_vectors_are_stored_and_searches_do_not_lie(
    tmp_path: Path, damage: Callable[[Path], None], pattern: str
) -> None:
    vectors = EdgeVectors(tmp_path, max_open=1)
    old = [point(unit(number)) for number in range(3)]
    await vectors.upsert(old, **HERE)
    await vectors.close()
    for file in [each for each in (tmp_path / NAME).glob(pattern) if each.is_file()]:
        damage(file)

    vectors = EdgeVectors(tmp_path, max_open=1)
    ids = [each.image_id for each in old]

    async def found() -> set[str]:
        """Store a vector, and return which of all of them can be found."""
        made = point(unit(4))
        await vectors.upsert([made], **HERE)
        page = await vectors.page(**HERE, limit=10)
        assert made.image_id in {image_id for image_id, _ in page.images}
        hits = await vectors.search(unit(4), **HERE, limit=10, threshold=-1)
        assert made.image_id in {hit.image_id for hit in hits}
        return {hit.image_id for hit in hits}

    said: list[str] = []
    for _ in range(4):  # some damage is met only by the first to read a vector, and only once
        try:
            whole = await found()
            break
        except VectorsUnavailable as error:
            said.append(str(error))
    assert not any(str(tmp_path) in each for each in said)
    if await vectors.damaged(tenant=HERE["tenant"]):
        with pytest.raises(VectorsDamaged):
            await vectors.search(unit(4), **HERE, limit=10, threshold=-1)
        for model in await vectors.damaged(tenant=HERE["tenant"]):
            await vectors.give_up_damaged(tenant=HERE["tenant"], model=model)
        assert any(name.startswith(f"{NAME}.aside-") for name in folders(tmp_path))
        whole = await found()
        assert not await vectors.present(ids, **HERE)
    elif whole >= set(ids):
        assert await vectors.present(ids, **HERE) == set(ids)  # the log had it all
    await vectors.upsert(old, **HERE)
    assert {*ids} <= await found()
    assert await vectors.drop(**HERE)
    await vectors.close()
    assert folders(tmp_path) == []


async def test_what_was_put_aside_is_known_after_a_restart_and_goes_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = EdgeVectors(tmp_path, max_open=1)
    await vectors.upsert([point(unit(1))], **HERE)
    await vectors.close()
    _empty(tmp_path / NAME / "edge_config.json")
    vectors = EdgeVectors(tmp_path, max_open=1)
    await vectors.upsert([point(unit(1))], **HERE)
    await vectors.close()
    vectors = EdgeVectors(tmp_path, max_open=1)
    assert await vectors.damaged(tenant=HERE["tenant"]) == [HERE["model"]]
    assert await vectors.damaged(tenant="other") == []
    await vectors.give_up_damaged(**HERE)
    assert await vectors.damaged(tenant=HERE["tenant"]) == []
    assert await vectors.count(**HERE) == 1
    await vectors.close()
    assert len(folders(tmp_path)) == 2
    monkeypatch.setattr(edge_damage, "KEPT_DAYS", 0)
    vectors = EdgeVectors(tmp_path, max_open=1)
    assert await vectors.count(**HERE) == 1
    await vectors.close()
    assert folders(tmp_path) == [NAME]


@pytest.mark.parametrize("said", ["Too many open files (os error 24)", "No space left on device"])
def test_what_passes_is_no_damage(said: str) -> None:
    assert not edge_damage.is_damage(Exception(f"Service runtime error: {said}"), loading=True)
    assert edge_damage.is_damage(Exception("IO Error: failed to load segment"), loading=True)
    assert not edge_damage.is_damage(Exception("Vector dimension error"), loading=False)


async def test_what_fails_elsewhere_is_no_damage_of_the_last_one_used(tmp_path: Path) -> None:
    """As a copy that was to be optimized, and cannot be loaded."""
    vectors = EdgeVectors(tmp_path, max_open=2)
    await vectors.upsert([point(unit(1), fileName="1.jpg")], **HERE)

    def load_copy() -> None:
        raise Exception("Service internal error: failed to deserialize the segment's state")

    with pytest.raises(VectorsUnavailable):
        await vectors._engine.run(load_copy)
    assert await vectors.damaged(tenant=HERE["tenant"]) == []
    assert len(await vectors.search(unit(1), limit=1, threshold=-1, **HERE)) == 1
    await vectors.close()


class _Damaged:
    """A copy of which Edge says what it says of damaged files."""

    def update(self, _operation: object) -> None:
        raise Exception("Service internal error: index out of bounds: the len is 0")


async def test_a_fault_of_the_copy_is_none_of_the_collection_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collection is read to bring over what has changed, and the copy is what fails then."""
    vectors, stored = EdgeVectors(tmp_path, max_open=2), point(unit(1))
    work = optimizer._optimized

    async def changed(copy: Path) -> bool:
        await work(copy)
        await vectors.upsert([stored], **HERE)
        return True

    async def bring_over(_self: object, name: str) -> None:
        await vectors._engine.run(lambda: vectors._optimizing._step(name, _Damaged()))  # type: ignore[arg-type]

    monkeypatch.setattr(optimizer, "_optimized", changed)
    monkeypatch.setattr(optimizer.EdgeOptimizing, "_bring_over", bring_over)
    await vectors.upsert([point(unit(2))], **HERE)
    await vectors.optimize(**HERE)
    await settled(vectors)
    assert await vectors.damaged(tenant=HERE["tenant"]) == []
    found = await vectors.describe(**HERE)
    assert found is not None
    assert (found.status, found.vectors) == (CollectionStatus.RED, 2)
    assert "failed" in (found.trouble or "")
    assert await vectors.present([stored.image_id], **HERE) == {stored.image_id}
    await vectors.close()
    assert folders(tmp_path) == [NAME]


async def test_a_wrong_call_of_ours_stays_one_and_damages_nothing(tmp_path: Path) -> None:
    vectors = EdgeVectors(tmp_path, max_open=2)
    await vectors.upsert([point(unit(1))], **HERE)
    known = Breakers()
    guarded = known.guard(vectors, "vectors")

    def get(work: Callable[[edge.EdgeShard], object]) -> Callable[[], object]:
        def job() -> object:
            shard = vectors._engine.shards.get(NAME)
            assert shard is not None
            return work(shard)

        return job

    for expected, work in (
        (TypeError, lambda shard: shard.update("no operation")),
        (ValueError, lambda shard: shard.scroll(edge.ScrollRequest(limit=1, offset="no ID"))),
        (KeyError, lambda shard: {"a": shard}["a file that does not exist"]),
    ):
        for _ in range(TRIES):
            with pytest.raises(expected), known["vectors"].call():
                await vectors._engine.run(get(work))
    assert not known["vectors"].is_open
    assert await vectors.damaged(tenant=HERE["tenant"]) == []
    assert await guarded.count(**HERE) == 1
    await vectors.close()


async def test_what_the_engine_refuses_of_a_request_is_no_outage(tmp_path: Path) -> None:
    vectors = EdgeVectors(tmp_path, max_open=2)
    await vectors.upsert([point(unit(1))], **HERE)

    def by_another_name() -> None:
        shard = vectors._engine.shards.get(NAME)
        assert shard is not None
        query = edge.Query.Nearest(unit(1).tolist(), using="none")
        shard.query(edge.QueryRequest(limit=1, query=query))

    with pytest.raises(VectorsRefused, match="Not existing vector name error: none"):
        await vectors._engine.run(by_another_name)
    await vectors.close()


async def test_a_damaged_collection_takes_search_from_nobody_else(tmp_path: Path) -> None:
    other = HERE | {"tenant": "other"}
    vectors = EdgeVectors(tmp_path, max_open=2)
    for place in (HERE, other):
        await vectors.upsert([point(unit(1))], **place)
    await vectors.close()
    for each in (tmp_path / NAME / "segments").rglob("*.json"):
        each.write_bytes(b"rubbish")
    known = Breakers()
    vectors = EdgeVectors(tmp_path, max_open=2)
    known["vectors"].ping = vectors.ping
    guarded = known.guard(vectors, "vectors")
    for _ in range(TRIES + 1):
        with pytest.raises(VectorsDamaged):
            await guarded.count(**HERE)
        assert await known["vectors"].answers()
        assert await guarded.count(**other) == 1
    await vectors.close()


# What a process leaves that dies at the wrong moment -----------------------------------------


@pytest.mark.parametrize("suffix", [".copy", ".gone", ".new"])
async def test_edge_forgets_what_is_no_whole_collection(tmp_path: Path, suffix: str) -> None:
    vectors = EdgeVectors(tmp_path, max_open=1)
    await vectors.upsert([point(unit(1))], **HERE)
    await vectors.close()
    (tmp_path / f"{NAME}{suffix}").mkdir()
    vectors = EdgeVectors(tmp_path, max_open=1)
    assert await vectors.models_of(tenant=HERE["tenant"]) == ["resnet50"]
    assert await vectors.count(**HERE) == 1
    await vectors.close()
    assert not (tmp_path / f"{NAME}{suffix}").exists()


async def test_edge_finishes_a_replacement(tmp_path: Path) -> None:
    vectors = EdgeVectors(tmp_path, max_open=1)
    await vectors.upsert([point(unit(1))], **HERE)
    await vectors.close()
    # It died between the two renames: the old one is aside, the copy is whole.
    (tmp_path / f"{NAME}.old").mkdir()
    (tmp_path / NAME).rename(tmp_path / f"{NAME}.copy")
    vectors = EdgeVectors(tmp_path, max_open=1)
    assert await vectors.count(**HERE) == 1
    await vectors.close()
    assert folders(tmp_path) == [NAME]


_WRITER = """
import asyncio, sys
from pathlib import Path
import numpy as np
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.vectors import VectorPoint
from deeplens_streams.vectors.edge.store import EdgeVectors

HERE = {"tenant": "acme-corp", "model": "resnet50"}
random = np.random.default_rng(1)

def made():
    image_id = new_image_id()
    vector = random.normal(size=1024).astype(np.float32)
    return VectorPoint(image_id, vector, {"imageId": image_id})

async def main():
    vectors = EdgeVectors(Path(sys.argv[1]), max_open=2)
    await vectors.upsert([made() for _ in range(2600)], **HERE)
    await vectors.optimize(**HERE)
    while True:
        point = made()
        await vectors.upsert([point], **HERE)
        is_at = vectors._optimizing.is_at("tenant_acme-corp_resnet50_vectors")
        print(point.image_id, "during" if is_at else "after", flush=True)
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["during", "after"])
async def test_edge_keeps_what_it_acknowledged_when_killed_around_a_swap(
    tmp_path: Path, moment: str
) -> None:
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITER, tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    lines: list[str] = []
    while sum(line.endswith(f" {moment}\n") for line in lines) < 30:
        lines.append((await writer.stdout.readline()).decode())
        assert lines[-1], "the writer ended"
    writer.kill()
    rest, _ = await writer.communicate()
    lines += [line for line in rest.decode().splitlines(keepends=True) if line.endswith("\n")]

    vectors = EdgeVectors(tmp_path, max_open=1)
    written = [line.split()[0] for line in lines if line.startswith("img_")]  # the rest is its log
    assert await vectors.present(written, **HERE) == set(written)
    found = await vectors.describe(**HERE)
    assert found is not None
    assert found.vectors is not None
    assert found.vectors >= 2600 + len(written)
    assert found.indexed or moment == "during"
    await vectors.close()
    assert folders(tmp_path) == [NAME]


async def test_the_optimizing_process_ends_with_its_parent(tmp_path: Path) -> None:
    vectors = EdgeVectors(tmp_path / "v", max_open=1)
    await crowd(vectors, 3000)
    await vectors.close()
    if not sys.platform.startswith("linux"):
        pytest.skip("Linux ends a child with its parent; elsewhere it ends with its work")
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PARENT,
        tmp_path / "v" / NAME,
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await until(lambda: not _runs(child), 10)


_PARENT = """
import os, subprocess, sys, time
module = "deeplens_streams.vectors.edge.optimizer_child"
child = subprocess.Popen([sys.executable, "-m", module, sys.argv[1], str(os.getpid())])
while os.getpriority(os.PRIO_PROCESS, child.pid) == os.nice(0):  # it has not begun
    time.sleep(0.01)
time.sleep(0.2)
print(child.pid, flush=True)
child.wait()
"""


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_vectors_of_another_tenancy_are_said_at_the_start(tmp_path: Path) -> None:
    for shared, expected in ((False, []), (True, [1]), (False, [1])):
        vectors = EdgeVectors(tmp_path, max_open=2, shared=shared)
        with structlog.testing.capture_logs() as said:
            await vectors.start()
        await vectors.upsert([point(unit(1))], **HERE)
        await vectors.close()
        assert [line["collections"] for line in said] == expected
    assert sorted(folders(tmp_path)) == ["shared_resnet50_vectors", NAME]
