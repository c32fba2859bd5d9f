"""What parts of the data folder take on the disk."""

from pathlib import Path

from prometheus_client import REGISTRY

from deeplens_streams.config import load_settings
from deeplens_streams.host.disk_usage import DiskUsage, parts, used
from tests.support.web_server import until


def test_what_is_written_is_measured_and_holes_are_not(tmp_path: Path) -> None:
    before = used(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "data").write_bytes(b"x" * 100_000)
    with (tmp_path / "a" / "sparse").open("wb") as sparse:
        sparse.truncate(10**9)
    (tmp_path / "loop").symlink_to(tmp_path)
    taken = used(tmp_path) - before
    assert 100_000 <= taken < 200_000
    assert used(tmp_path / "nothing") == 0


def test_a_look_is_bounded_and_can_be_given_up(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).write_bytes(b"x" * 4096)
    assert used(tmp_path, most=2) < used(tmp_path)
    assert used(tmp_path, is_over=lambda: True) == 0


def test_nothing_of_others_machines_is_walked(tmp_path: Path) -> None:
    here = load_settings(weights="untrained", data_dir=tmp_path)
    assert set(parts(here)) == {"images", "vectors", "state", "kafka"}
    assert parts(here)["images"] == tmp_path / "images"
    away = {"storage_url": "s3://bucket/x", "qdrant_url": "http://qdrant:6333"}
    far = load_settings(weights="untrained", data_dir=tmp_path, **away)
    assert set(parts(far)) == {"state", "kafka"}
    moved = load_settings(weights="untrained", storage_url=(tmp_path / "elsewhere").as_uri())
    assert parts(moved)["images"] == tmp_path / "elsewhere"


async def test_both_figures_are_in_the_metrics(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "log").write_bytes(b"x" * 50_000)

    def figure(name: str) -> float:
        return REGISTRY.get_sample_value(f"deeplens_disk_{name}_bytes", {"part": "kafka"}) or 0.0

    async with DiskUsage(load_settings(weights="untrained", data_dir=tmp_path)):
        await until(lambda: figure("used") >= 50_000 and figure("free") > 0)
