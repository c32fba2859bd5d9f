"""What ``deeplens backup`` and ``restore`` refuse, and what they say."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from rich.table import Table

from deeplens_streams.backup.copying import Finding
from deeplens_streams.backup.errors import BackupDamaged
from deeplens_streams.cli import console
from deeplens_streams.cli.copy_progress import Shown, count_and_size
from deeplens_streams.cli.main import main
from deeplens_streams.host.folder_lock import FolderLock


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command sends the log to its own standard error, which is closed when its test ends."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    monkeypatch.setenv("DEEPLENS_DATA_DIR", str(data))
    return data


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("backup", "data/images/backup"), "lie in each other"),
        (("backup", "."), "lie in each other"),
        (("backup", "--verify", "nowhere"), "There is no folder"),
        (("restore", "nowhere"), "There is no folder"),
        (("restore", "."), "lie in each other"),
        (("backup", "gopher://there"), "cannot be kept"),
        (("restore", "empty"), "There is no backup here"),
        (("backup", "--verify", "empty"), "There is no backup here"),
        (("backup", "other"), "Something else than a backup"),
    ],
)
def test_refused_with_a_sentence(
    data: Path,
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(data.parent)
    Path("empty").mkdir()
    Path("other/of-somebody").mkdir(parents=True)
    Path("other/of-somebody/letter.txt").touch()
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1
    assert not Path("nowhere").exists()


def test_no_storage_is_no_empty_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "images").rmdir()
    with pytest.raises(SystemExit) as ended:
        main(["backup", str(tmp_path / "there")])
    assert ended.value.code == 1
    assert "There is no folder" in capsys.readouterr().err


def test_a_restore_waits_for_nobody(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["backup", str(tmp_path / "there")])
    assert ended.value.code == 0
    with FolderLock(data), pytest.raises(SystemExit) as ended:
        main(["restore", str(tmp_path / "there")])
    assert ended.value.code == 1
    assert "is in use" in capsys.readouterr().err


def test_findings_are_counted_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    with Shown("read", as_json=False) as shown:
        shown.tell(Finding("a/[key]", "damaged", "it is empty"))
        shown.counts.faults["damaged"] += 1
    with pytest.raises(BackupDamaged, match="1 damaged; do something"):
        shown.end("It holds nothing", "do something")
    said = capsys.readouterr()
    assert said.err == "a/[key]: damaged, it is empty\n"
    assert said.out == "It holds nothing.\n"


@pytest.mark.parametrize("name", ["two words", "é", "a [red]b[/]", ":cat:"])
def test_a_folder_is_called_what_it_is_called(
    data: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / name
    for arguments in (["backup", str(there)], ["backup", "--verify", str(there)]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(f"{there} holds 0 objects")


def test_names_in_tables_are_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("file")
    table.add_row("[bold]of :cat:.jpg")
    console.out().print(table)
    assert "[bold]of :cat:.jpg" in capsys.readouterr().out


def test_sizes_in_words() -> None:
    assert count_and_size(1, 999) == "1 object of 999 bytes"
    assert count_and_size(2, 1_500_000) == "2 objects of 1.5 MB"
    assert count_and_size(2, 5_000_000_000_000_000) == "2 objects of 5000.0 TB"
