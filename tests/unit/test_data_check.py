"""What ``deeplens doctor --data`` says of a data folder in which something is damaged."""

import asyncio
import json
import os
import shutil
import struct
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from rocksdict import Options, Rdict

from deeplens_streams.cli.main import main
from deeplens_streams.config import Settings
from deeplens_streams.data_check.damage import Damage, Look
from deeplens_streams.data_check.run import check
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.host.folder_lock import FolderInUse, FolderLock
from deeplens_streams.storage import blobs_at
from deeplens_streams.storage.image_objects import metadata_key_of
from deeplens_streams.storage.object_keys import pointer_key, tombstone_key
from deeplens_streams.vectors.base import VectorPoint
from deeplens_streams.vectors.edge.store import EdgeVectors
from models.images import StoredImage
from tests.support.backups import World

TABLE = "state/api/v1/tables/image_status-3.db"
TOPIC = "kafka/data/deeplens.images.uploaded-0"
SEGMENTS = (f"{TOPIC}/{0:020}.log", f"{TOPIC}/{100:020}.log")
COLLECTION = "vectors/tenant_acme_resnet50_vectors"
ROWS, BATCHES, POINTS = 3000, 20, 40


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[StoredImage]]:
    """A data folder with something of each kind."""
    data = tmp_path_factory.mktemp("sound") / "data"
    world = World(blobs_at((data / "images").as_uri(), Settings()))

    async def fill() -> list[StoredImage]:
        images = [await world.upload() for _ in range(4)]
        await world.delete(await world.upload())
        await world.fail(images[0])
        await world.write(".registry/acme.json", b"{}")
        await vectors(data / "vectors")
        return images

    images = asyncio.run(fill())
    table(data / TABLE)
    (data / TOPIC).mkdir(parents=True)
    (data / "kafka/data/meta.properties").write_text("version=1\ncluster.id=x\nnode.id=1\n")
    (data / "kafka/data/recovery-point-offset-checkpoint").write_text("0\n1\na 0 5\n")
    (data / "kafka/data/cleaner-offset-checkpoint").touch()
    for number, name in enumerate(SEGMENTS):
        path = data / name
        path.write_bytes(b"".join(batch(100 * number + i * 5) for i in range(BATCHES)))
        place = (BATCHES - 3) * len(batch(0))
        path.with_suffix(".index").write_bytes(struct.pack(">iiii", 60, place, 0, 0))
        path.with_suffix(".timeindex").write_bytes(bytes(24))
    return data, images


def batch(offset: int) -> bytes:
    """Return a batch of five records, as Kafka's clients make them."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 20)
    for number in range(5):
        assert builder.append(number, 1, b"key", os.urandom(50), [])
    raw = builder.build()
    raw[:8] = offset.to_bytes(8, "big")
    return bytes(raw)


def table(folder: Path) -> None:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    folder.parent.mkdir(parents=True)
    database = Rdict(str(folder), options=options)
    for number in range(ROWS):
        database[b"%d" % number] = os.urandom(100)
        if number == ROWS // 2:
            database.flush()
    database.flush()
    for number in range(10):  # in the write-ahead log alone
        database[b"last-%d" % number] = b"x"
    database.close()


async def vectors(folder: Path) -> None:
    store = EdgeVectors(folder, max_open=1, shared=False)
    await store.start()
    points = []
    for _ in range(POINTS):
        image_id, vector = f"img_{uuid.uuid4()}", np.random.default_rng().normal(size=64)
        payload = {"imageId": image_id, "uploadedAt": "2025-03-09T12:00:00.000Z", "tags": {}}
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        points.append(VectorPoint(image_id, unit, payload))
    await store.upsert(points, tenant="acme", model="resnet50")
    await store.close()


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command sends the log to its own standard error, which is closed when its test ends."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def data(sound: tuple[Path, list[StoredImage]], tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(sound[0], tmp_path / "data"))


def found(data: Path) -> tuple[list[Damage], Look]:
    before = contents(data)

    async def run() -> list[Damage]:
        return [damage async for damage in check(look)]

    look = Look(Settings(data_dir=data))
    damages = asyncio.run(run())
    assert contents(data) == before, "it changed something"
    return damages, look


def contents(data: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in data.rglob("*")}


def test_a_sound_folder_is_read_whole_and_left_as_it_is(data: Path) -> None:
    damages, look = found(data)
    assert damages == []
    assert look.looked >= ROWS + 10 + 2 * BATCHES + POINTS
    assert look.left_out == []


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0xFF
    path.write_bytes(raw)


def cut(path: Path, share: float = 0.5) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


def append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def drop(path: Path) -> None:
    path.unlink()


def in_images(name: str) -> Callable[[list[StoredImage]], str]:
    def key(images: list[StoredImage]) -> str:
        one = images[0]
        return "images/" + {
            "original": one.originalKey,
            "thumbnail": one.thumbnailKey,
            "metadata": metadata_key_of(one),
            "pointer": pointer_key(one.imageId),
        }.get(name, name)

    return key


IMAGES: list[tuple[str, Callable[[Path], None], str, str]] = [
    ("original", empty, "original_empty", "restore"),
    ("original", cut, "original_damaged", "restore"),
    ("original", drop, "original_missing", "restore"),
    ("thumbnail", empty, "thumbnail_empty", "audit"),
    ("metadata", empty, "metadata_damaged", "restore"),
    ("metadata", zero, "metadata_damaged", "restore"),
    ("metadata", cut, "metadata_damaged", "restore"),
    ("pointer", drop, "pointer_missing", "audit"),
    ("pointer", empty, "pointer_damaged", "audit"),
    (".registry/acme.json", cut, "object_damaged", "restore"),
]


@pytest.mark.parametrize("case", IMAGES)
def test_images(
    data: Path,
    sound: tuple[Path, list[StoredImage]],
    case: tuple[str, Callable[[Path], None], str, str],
) -> None:
    name, harm, kind, mend = case
    path = in_images(name)(sound[1])
    harm(data / path)
    damages, _ = found(data)
    assert [(each.part, each.path, each.kind) for each in damages] == [("images", path, kind)]
    assert f"deeplens {mend}" in damages[0].mend
    if not name.startswith("."):
        assert damages[0].subject == sound[1][0].imageId


def test_what_is_of_no_image(data: Path, sound: tuple[Path, list[StoredImage]]) -> None:
    image = sound[1][0]
    stone = tombstone_key(tenant=image.tenantId, image_id=image.imageId, ms=0)
    for key in (stone, f"{image.originalKey}#123456"):
        path = data / "images" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    damages, _ = found(data)
    assert {(each.path, each.kind) for each in damages} == {
        (f"images/{stone}", "tombstone_damaged"),
        (f"images/{image.originalKey}#123456", "write_unfinished"),
    }


def sst(data: Path) -> Path:
    return max((data / TABLE).glob("*.sst"), key=lambda path: path.stat().st_size)


def test_tables(data: Path, tmp_path: Path) -> None:
    harms: list[Callable[[Path], None]] = [
        lambda db: flip(sst(db), sst(db).stat().st_size // 3),
        lambda db: cut(sst(db)),
        lambda db: drop(sst(db)),
        lambda db: empty(next((db / TABLE).glob("MANIFEST-*"))),
        lambda db: drop(db / TABLE / "CURRENT"),
        lambda db: cut(next((db / TABLE).glob("MANIFEST-*")), 0.3),
    ]
    for number, harm in enumerate(harms):
        copy = Path(shutil.copytree(data, tmp_path / f"copy-{number}"))
        harm(copy)
        damages, _ = found(copy)
        named = [(each.path, each.kind, each.subject) for each in damages]
        assert named == [(TABLE, "table_damaged", "image_status-3")], (number, damages)
        assert "next start" in damages[0].mend


KAFKA: list[tuple[str, Callable[[Path], None], str]] = [
    (SEGMENTS[0], lambda path: flip(path, 700), "kafka_log_damaged"),
    (SEGMENTS[0], lambda path: cut(path, 0.48), "kafka_log_damaged"),
    (SEGMENTS[0], cut, "kafka_log_damaged"),  # between two batches
    (SEGMENTS[0], zero, "kafka_log_damaged"),
    (SEGMENTS[1], lambda path: cut(path, 0.99), "kafka_tail_cut"),
    (SEGMENTS[1], lambda path: append(path, b"\0" * 9000), "kafka_tail_cut"),
    (SEGMENTS[1], lambda path: append(path, b"\0" * 9000 + b"?"), "kafka_log_damaged"),
    (SEGMENTS[1], lambda path: flip(path, 700), "kafka_log_damaged"),
    (SEGMENTS[1].replace(".log", ".index"), drop, "kafka_index_damaged"),
    (SEGMENTS[1].replace(".log", ".timeindex"), lambda path: cut(path, 0.4), "kafka_index_damaged"),
    ("kafka/data/meta.properties", empty, "kafka_meta_damaged"),
    ("kafka/data/recovery-point-offset-checkpoint", cut, "kafka_checkpoint_damaged"),
]


@pytest.mark.parametrize(("path", "harm", "kind"), KAFKA)
def test_kafka(data: Path, path: str, harm: Callable[[Path], None], kind: str) -> None:
    harm(data / path)
    damages, _ = found(data)
    assert [(each.part, each.path, each.kind) for each in damages] == [("kafka", path, kind)]
    assert damages[0].mend


def test_a_topic_without_a_segment(data: Path) -> None:
    for path in (data / TOPIC).iterdir():
        path.unlink()
    damages, _ = found(data)
    assert [(each.path, each.kind) for each in damages] == [(TOPIC, "kafka_segment_missing")]


def test_vectors(data: Path, tmp_path: Path) -> None:
    collection = data / COLLECTION
    chunk = next(collection.glob("segments/*/vector_storage/vectors/chunk_0.mmap"))
    for number, relative in enumerate(
        ("edge_config.json", str(chunk.relative_to(collection)), "no folder")
    ):
        copy = Path(shutil.copytree(data, tmp_path / f"copy-{number}"))
        path = copy / COLLECTION
        if relative == "no folder":
            shutil.rmtree(path)
            path.touch()
        elif relative.endswith(".json"):
            empty(path / relative)
        else:  # whole pages of zeros, as a power cut leaves them
            shutil.rmtree(path / "wal")
            empty(path / relative)
        damages, _ = found(copy)
        named = [(each.part, each.path, each.kind) for each in damages]
        assert named == [("vectors", COLLECTION, "collection_damaged")], (relative, damages)
        assert "audit --repair" in damages[0].mend
    (data / f"{COLLECTION}.copy").mkdir()
    damages, _ = found(data)
    assert [each.kind for each in damages] == ["collection_unfinished"]


def test_a_folder_in_use_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no data folder"):
        found_in(tmp_path / "nowhere")
    for folder in (data, data / "state"):
        with FolderLock(folder), pytest.raises(FolderInUse, match="stop it first"):
            found_in(folder if folder == data else data)


def found_in(data: Path) -> None:
    async def run() -> None:
        async for _ in check(Look(Settings(data_dir=data))):
            pass

    asyncio.run(run())


def test_the_command(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEEPLENS_DATA_DIR", str(data))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "--data", *arguments])
        said = capsys.readouterr()
        return int(str(ended.value.code)), said.out, said.err

    status, out, err = run()
    assert (status, err) == (0, "")
    assert "all is well" in out
    empty(data / "kafka/data/meta.properties")
    status, out, err = run()
    assert status == 1
    assert out.startswith("kafka/data/meta.properties (data): kafka_meta_damaged, ")
    assert "    mend: remove kafka and state" in out
    assert err.splitlines()[-1] == f"deeplens: {data}: 1 kafka_meta_damaged."
    status, out, _ = run("--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (status, lines[0]["kind"], lines[1]["faults"]) == (
        1,
        "kafka_meta_damaged",
        {"kafka_meta_damaged": 1},
    )
