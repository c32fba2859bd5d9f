"""What keeps the Kafka of this machine from starting, and what is done about it."""

import os
from pathlib import Path

import pytest

from deeplens_streams.cli import damaged_kafka
from deeplens_streams.cli.damaged_kafka import KafkaMending
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.embedded_kafka import complaints

ABOUT = "version: 0\ntopic_id: 1cJ1i2DFTQ-a2tiSPYJAjA"
RECOVERY_POINT = "recovery-point-offset-checkpoint"
#: What Kafka 4 says of each, as it ends.
SAYS = {
    "meta.properties": "java.lang.RuntimeException: Error: node ID not found in data",
    RECOVERY_POINT: "java.io.IOException: Malformed line in checkpoint file "
    f"[/x/{RECOVERY_POINT}]: t",
    "t-0/partition.metadata": 'java.lang.NullPointerException: Cannot invoke "java.lang.'
    'CharSequence.length()" because "this.text" is null',
    "t-0/quorum-state": "java.io.UncheckedIOException: Error while reading the Quorum status from "
    "the file /x/kafka/data/t-0/quorum-state",
    "t-0/00000000000000000000.log": "org.apache.kafka.common.errors.CorruptRecordException: Found "
    "record size 0 smaller than minimum record overhead (14) in file "
    "/x/kafka/data/t-0/00000000000000000000.log.",
}
SEGMENT = "t-0/00000000000000000000.log"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return those of a data folder with a Kafka that has one empty partition."""
    partition = tmp_path / "kafka" / "data" / "t-0"
    partition.mkdir(parents=True)
    (partition.parent / "meta.properties").write_text("version=1\nnode.id=1\ncluster.id=x\n")
    (partition.parent / RECOVERY_POINT).write_text("0\n1\nt 0 0\n")
    (partition / "partition.metadata").write_text(ABOUT)
    for suffix in ("log", "index", "timeindex"):
        (partition / f"{0:020}.{suffix}").write_bytes(b"")
    return load_settings(data_dir=tmp_path)


def names(settings: Settings) -> list[str]:
    return sorted(path.name for path in (settings.data_dir / "kafka").iterdir())


def contents(settings: Settings) -> dict[str, bytes]:
    """Return every file, wherever it lies by now."""
    folder = settings.data_dir / "kafka"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_nothing_is_done_without_damage(settings: Settings) -> None:
    mending = KafkaMending(settings)
    assert mending.mend(list(SAYS.values())) is None
    assert mending.left() is None
    assert names(settings) == ["data"]


def test_a_damaged_checkpoint_is_put_aside_and_nothing_else(settings: Settings) -> None:
    file = settings.data_dir / "kafka" / "data" / RECOVERY_POINT
    file.write_text("0\n2\nt 0")
    mending = KafkaMending(settings)
    said = mending.mend([SAYS[RECOVERY_POINT]])
    assert said is not None
    assert RECOVERY_POINT in said
    data, kept = names(settings)
    assert data == "data"
    assert kept.startswith(f"data.{RECOVERY_POINT}.damaged-")
    assert (settings.data_dir / "kafka" / kept).read_text() == "0\n2\nt 0"
    # It did not help, and nothing else is damaged.
    assert mending.mend([SAYS[RECOVERY_POINT]]) is None
    assert len(names(settings)) == 2


@pytest.mark.parametrize("rest", [b"\0" * 5000, b"\0" * 7], ids=["zeros", "cut off"])
def test_what_a_kill_leaves_and_a_start_mends_is_no_reason(settings: Settings, rest: bytes) -> None:
    """The port is taken, the disk is full, or the machine is slow."""
    (settings.data_dir / "kafka" / "data" / SEGMENT).write_bytes(rest)
    before = contents(settings)
    mending = KafkaMending(settings)
    for errors in ([], ["Error: Could not create the Java Virtual Machine."]):
        assert mending.mend(errors) is None
    assert mending.left() is None
    assert contents(settings) == before


def test_zeros_that_kafka_names_are_cut_off_by_a_start_as_after_a_kill(settings: Settings) -> None:
    data = settings.data_dir / "kafka" / "data"
    (data / SEGMENT).write_bytes(b"\0" * 5000)
    mending = KafkaMending(settings)
    said = mending.mend([SAYS[SEGMENT]])
    assert said is not None
    assert SEGMENT in said
    assert mending.mend([SAYS[SEGMENT]]) is None
    assert (data / SEGMENT).stat().st_size == 5000
    assert names(settings) == ["data"]


@pytest.mark.parametrize("kind", ["another partition", "no room", "nothing"])
def test_damage_that_is_not_why_kafka_ended_stays_and_is_named(
    settings: Settings, kind: str
) -> None:
    (settings.data_dir / "kafka" / "data" / SEGMENT).write_bytes(b"?" * 5000)
    before = contents(settings)
    errors = {
        "another partition": [SAYS[SEGMENT].replace("/t-0/", "/other.t-0/")],
        "no room": [SAYS[SEGMENT], "java.io.IOException: No space left on device"],
        "nothing": ["java.net.BindException: Address already in use"],
    }
    mending = KafkaMending(settings)
    assert mending.mend(errors[kind]) is None
    left = mending.left()
    assert left is not None
    assert SEGMENT in left
    assert contents(settings) == before


def test_what_is_put_aside_stays_for_days(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = settings.data_dir / "kafka"

    def put_aside() -> set[str]:
        (kafka / "data").mkdir(exist_ok=True)
        (kafka / "data" / "meta.properties").write_bytes(b"")
        assert KafkaMending(settings).mend([SAYS["meta.properties"]]) is not None
        return set(names(settings))

    for number in range(1, 4):
        assert len(put_aside()) == number
    monkeypatch.setattr(damaged_kafka, "KEPT_DAYS", 0)
    assert len(put_aside()) == 1


@pytest.mark.parametrize("name", ["meta.properties", "t-0/partition.metadata", "t-0/quorum-state"])
def test_what_nobody_makes_anew_has_all_put_aside_once(settings: Settings, name: str) -> None:
    folder = settings.data_dir / "kafka"
    for _ in range(2):
        file = folder / "data" / name
        file.touch()
        os.truncate(file, 0)
        before = set(contents(settings).values())
        said = KafkaMending(settings).mend(["2026-01-01T00:00:00,000Z ERROR K it ends", SAYS[name]])
        assert said is not None
        assert name in said
        (kept,) = names(settings)
        assert (folder / kept / "t-0").is_dir()
        assert set(contents(settings).values()) == before
        (folder / kept).rename(folder / "data")
    assert names(settings) == ["data"]


def test_of_a_log_errors_count_with_their_exceptions_and_warnings_do_not(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    log.write_text(
        "of an earlier run\n"
        "2026-01-01T00:00:00,000Z WARN  LogSegment Found invalid messages in t-0/0.log\n"
        "org.apache.kafka.common.errors.CorruptRecordException: Found record size 0 in t-0\n"
        "\tat kafka.Frame\n\n"
        "2026-01-01T00:00:00,000Z ERROR LogManager It ends\n"
        "java.io.IOException: t-1\n"
        "2026-01-01T00:00:00,000Z INFO  KafkaServer shut down completed\n"
    )
    said = complaints.lines(log, len("of an earlier run\n"))
    assert complaints.errors(said) == [
        "2026-01-01T00:00:00,000Z ERROR LogManager It ends",
        "java.io.IOException: t-1",
    ]
    assert complaints.last_words(said) == "java.io.IOException: t-1"
    assert complaints.lines(tmp_path / "none") == []
    assert complaints.errors(["Error: Could not find or load main class"]) != []
