"""Kafka's data that an earlier version wrote beside its folder, and brought home."""

import errno
import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deeplens_streams.embedded_kafka import astray
from deeplens_streams.embedded_kafka.astray import DataAstray, bring_home, log_dirs


def prepared(folder: Path, *, cluster: str = "ours", node: int = 1) -> Path:
    """Make a folder that Kafka has prepared, with one partition."""
    (folder / f"topic-of-{folder.name}-0").mkdir(parents=True)
    (folder / "meta.properties").write_text(f"#\nnode.id={node}\ncluster.id={cluster}\n")
    return folder


def written_before(folder: Path) -> Path:
    """Write what the earlier version wrote into its folder."""
    (folder / "logs").mkdir(parents=True)
    (folder / "server.properties").write_text(f"node.id=1\nlog.dirs={folder / 'data'}\nx=1\n")
    log = folder / "logs" / "kafka.log"
    (folder / "log4j2.properties").write_text(f"appender.file.fileName={log}\n")
    return folder


def partitions(folder: Path) -> list[str]:
    return sorted(path.parent.name + "/" + path.name for path in folder.glob("data*/topic-*"))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("Ré né", "RÃ© nÃ©"),
        ("日本 😀", "日本 😀".encode().decode("latin-1")),
        ("back\\slash", "backslash"),
        ("tab\\tu\\u0041", "tab\tuA"),
    ],
)
def test_what_was_misread_is_moved_and_nothing_is_left(
    tmp_path: Path, name: str, read: str
) -> None:
    folder = written_before(tmp_path / name / "kafka")
    stray = prepared(tmp_path / read / "kafka" / "data")
    (logs := stray.parent / "logs").mkdir()
    (logs / "kafka.log").write_text("what it said")

    (said,) = bring_home(folder)

    assert said == (
        f"An earlier version kept Kafka's data in {stray}; it is moved to {folder / 'data'}."
    )
    assert partitions(folder) == ["data/topic-of-data-0"]
    assert (folder / "logs" / "kafka.log").read_text() == "what it said"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert log_dirs(folder) == ["data"]
    assert list(bring_home(folder)) == []


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A folder with a comma in its path, whose data lies in the two places of the list."""
    folder = written_before(tmp_path / "a, b" / "kafka")
    prepared(tmp_path / "a")
    prepared(tmp_path / "a, b" / "b" / "kafka" / "data")
    return folder


def test_parts_of_a_list_stay_apart(listed: Path, tmp_path: Path) -> None:
    """Kafka knows each by an ID: it has them both, the one with its own records first."""
    assert len(list(bring_home(listed))) == 2
    assert partitions(listed) == ["data-2/topic-of-data-0", "data/topic-of-a-0"]
    assert log_dirs(listed) == ["data", "data-2"]
    assert [path.name for path in tmp_path.iterdir()] == ["a, b"]
    assert [path.name for path in (tmp_path / "a, b").iterdir()] == ["kafka"]


def test_a_crash_between_two_parts_is_made_up_for(
    listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(astray, "_move", once(astray._move))
        with pytest.raises(KeyboardInterrupt):
            list(bring_home(listed))
    assert log_dirs(listed) == ["data"]
    assert len(list(bring_home(listed))) == 1
    assert log_dirs(listed) == ["data", "data-2"]


def once(work: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    calls: list[Path] = []

    def limited(source: Path, target: Path) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(source)
        work(source, target)

    return limited


def test_without_one_part_nothing_is_started(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "a, b" / "b").rename(tmp_path / "elsewhere")

    with pytest.raises(DataAstray, match="kept a part of Kafka's data in b/kafka/data"):
        list(bring_home(listed))

    assert partitions(listed) == []
    assert (tmp_path / "a" / "meta.properties").exists()


def test_a_part_of_another_kafka_is_no_part(listed: Path, tmp_path: Path) -> None:
    (tmp_path / "a, b" / "b" / "kafka" / "data" / "meta.properties").write_text(
        "node.id=1\ncluster.id=another\n"
    )
    with pytest.raises(DataAstray):
        list(bring_home(listed))


def test_what_is_not_kafkas_stays(tmp_path: Path) -> None:
    folder = written_before(tmp_path / "Ré" / "kafka")
    mine = tmp_path / "RÃ©" / "kafka" / "data"
    mine.mkdir(parents=True)
    assert list(bring_home(folder)) == []
    prepared(mine, node=7)
    assert list(bring_home(folder)) == []
    assert mine.exists()


def test_a_copy_of_a_folder_takes_a_copy(tmp_path: Path) -> None:
    written_before(tmp_path / "Ré" / "kafka")
    stray = prepared(tmp_path / "RÃ©" / "kafka" / "data")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "Ré" / "kafka", copy)

    (said,) = bring_home(copy)

    assert "it is copied to" in said
    assert partitions(copy) == ["data/topic-of-data-0"]
    assert stray.exists()


def test_a_moved_folder_takes_what_was_its_own(tmp_path: Path) -> None:
    written_before(tmp_path / "Ré" / "kafka")
    prepared(tmp_path / "RÃ©" / "kafka" / "data")
    moved = (tmp_path / "Ré").rename(tmp_path / "moved") / "kafka"

    assert len(list(bring_home(moved))) == 1
    assert partitions(moved) == ["data/topic-of-data-0"]


def test_a_running_kafka_keeps_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written_before(tmp_path / "Ré" / "kafka")
    stray = prepared(tmp_path / "RÃ©" / "kafka" / "data")
    (stray / ".lock").touch()

    def locked(*_: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr(fcntl, "lockf", locked)
    with pytest.raises(DataAstray, match="is in use; stop that first"):
        list(bring_home(folder))
    assert stray.exists()


def test_another_file_system_is_copied_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written_before(tmp_path / "Ré" / "kafka")
    stray = prepared(tmp_path / "RÃ©" / "kafka" / "data")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self == stray:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    assert len(list(bring_home(folder))) == 1
    assert partitions(folder) == ["data/topic-of-data-0"]
    assert not stray.exists()


def test_a_folder_that_was_right_is_left_alone(tmp_path: Path) -> None:
    folder = written_before(tmp_path / "plain" / "kafka")
    assert list(bring_home(folder)) == []  # Kafka never ran
    prepared(folder / "data")
    assert list(bring_home(folder)) == []
    moved = folder.rename(tmp_path / "Ré, né")
    assert list(bring_home(moved)) == []
    assert log_dirs(moved) == ["data"]
