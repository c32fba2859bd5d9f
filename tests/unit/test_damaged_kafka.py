"""What keeps the Kafka of this machine from starting, and what is done about it."""

import os
from pathlib import Path

import pytest

from deeplens_streams.cli import damaged_kafka
from deeplens_streams.cli.damaged_kafka import KafkaMending
from deeplens_streams.config import Settings, load_settings

ABOUT = "version: 0\ntopic_id: 1cJ1i2DFTQ-a2tiSPYJAjA"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return those of a data folder with a Kafka that has one empty partition."""
    partition = tmp_path / "kafka" / "data" / "t-0"
    partition.mkdir(parents=True)
    (partition.parent / "meta.properties").write_text("version=1\nnode.id=1\ncluster.id=x\n")
    (partition.parent / "recovery-point-offset-checkpoint").write_text("0\n1\nt 0 0\n")
    (partition / "partition.metadata").write_text(ABOUT)
    for suffix in ("log", "index", "timeindex"):
        (partition / f"{0:020}.{suffix}").write_bytes(b"")
    return load_settings(data_dir=tmp_path)


def names(settings: Settings) -> list[str]:
    return sorted(path.name for path in (settings.data_dir / "kafka").iterdir())


def test_nothing_is_done_without_damage(settings: Settings) -> None:
    assert KafkaMending(settings).mend() is None
    assert names(settings) == ["data"]


def test_a_damaged_checkpoint_goes_and_then_all_is_put_aside(settings: Settings) -> None:
    data = settings.data_dir / "kafka" / "data"
    (data / "recovery-point-offset-checkpoint").write_text("0\n2\nt 0")
    mending = KafkaMending(settings)
    said = mending.mend()
    assert said is not None
    assert "recovery-point-offset-checkpoint" in said
    assert names(settings) == ["data"]
    assert (data / "meta.properties").exists()
    # It did not help.
    said = mending.mend()
    assert said is not None
    assert "deeplens audit --repair" in said
    assert len(names(settings)) == 1
    assert names(settings)[0].startswith("data.damaged-")
    assert mending.mend() is None


def test_what_a_kill_leaves_and_a_start_mends_is_no_reason(settings: Settings) -> None:
    """The port is taken, the disk is full, or the machine is slow."""
    partition = settings.data_dir / "kafka" / "data" / "t-0"
    (partition / f"{0:020}.log").write_bytes(b"\0" * 7)
    assert KafkaMending(settings).mend() is None
    assert names(settings) == ["data"]


def test_what_was_put_aside_first_stays_for_days(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = settings.data_dir / "kafka"

    def put_aside() -> set[str]:
        (kafka / "data").mkdir(exist_ok=True)
        (kafka / "data" / "meta.properties").write_bytes(b"")
        assert KafkaMending(settings).mend() is not None
        return set(names(settings))

    (first,) = put_aside()
    for _ in range(3):
        last = put_aside()
        assert first in last
        assert len(last) == 2
    monkeypatch.setattr(damaged_kafka, "KEPT_DAYS", 0)
    assert len(put_aside()) == 1


@pytest.mark.parametrize("name", ["meta.properties", "t-0/partition.metadata", "t-0/quorum-state"])
def test_what_nobody_makes_anew_has_all_put_aside_once(settings: Settings, name: str) -> None:
    folder = settings.data_dir / "kafka"
    for _ in range(2):
        file = folder / "data" / name
        file.touch()
        os.truncate(file, 0)
        said = KafkaMending(settings).mend()
        assert said is not None
        assert name in said
        (kept,) = names(settings)
        assert (folder / kept / "t-0").is_dir()
        if not (folder / "data").exists():
            (folder / kept).rename(folder / "data")
    assert names(settings) == ["data"]
