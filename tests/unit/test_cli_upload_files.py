"""``deeplens upload DIR``: what is sent, what is passed over, and names that are no text."""

import errno
import os
from pathlib import Path

import pytest

from deeplens_streams.cli import upload_files
from deeplens_streams.cli.upload_files import find_files, shown
from tests.support.photographs import as_jpeg, photograph
from tests.support.shells import Shell, shell, web
from tests.support.web_server import Web

__all__ = ["shell", "web"]  # fixtures

CAT = as_jpeg(photograph("chelsea").data)
COFFEE = as_jpeg(photograph("coffee").data)


def test_pictures_are_told_by_content(tmp_path: Path) -> None:
    for name in ("cat.pic", "cat", "cat.jpg", "cat.txt"):
        (tmp_path / name).write_bytes(CAT)
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "notes.txt").write_text("no picture")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nothing")
    found = find_files([tmp_path])
    names = [each.name for each in found.pictures]
    assert names == ["cat", "cat.jpg", "cat.pic", "cat.txt", "page.jpg"]
    over = {each.path.name for each in found.passed_over}
    assert over == {"notes.txt", "pipe.jpg", "dangling.jpg"}
    assert found.unreadable == []


@pytest.mark.parametrize(
    "leftover",
    [".thumbs/cat.jpg", "@eaDir/cat.jpg/SYNO.jpg", "._cat.jpg", "__MACOSX/._cat.jpg", ".cat.jpg"],
)
def test_leftovers_of_other_programs_are_passed_over(tmp_path: Path, leftover: str) -> None:
    path = tmp_path / "deeper" / leftover
    path.parent.mkdir(parents=True)
    path.write_bytes(CAT)
    (tmp_path / "cat.jpg").write_bytes(CAT)
    found = find_files([tmp_path])
    assert found.pictures == [tmp_path / "cat.jpg"]
    assert len(found.passed_over) == 1
    # What is named is wanted.
    assert find_files([path]).pictures == [path]


def test_a_file_is_sent_once(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(CAT)
    found = find_files([tmp_path / "cat.jpg", tmp_path, tmp_path])
    assert found.pictures == [tmp_path / "cat.jpg"]


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        (b"caf\xc3\xa9.jpg", "café.jpg"),
        (b"caf\xe9.jpg", "caf\\xe9.jpg"),
        (b"two\nlines\x1b[31m.jpg", "two\\nlines\\x1b[31m.jpg"),
    ],
)
def test_a_path_is_printed_as_one_line(name: bytes, printed: str) -> None:
    assert shown(Path(os.fsdecode(name))) == printed


async def test_odd_names_hold_up_nothing(shell: Shell, web: Web, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = [b"a\xe9.jpg", b"b\nb.jpg", b'c"\\c.jpg', b"d%0Ad.jpg", b"e\x1b[31m.jpg"]
    for number, name in enumerate(names):
        # Other bytes each, so that none is a duplicate.
        (folder / os.fsdecode(name)).write_bytes(CAT + bytes([number]))
    (folder / os.fsdecode(b"f\xff.jpg")).write_text("no picture")
    (folder / "g.jpg").write_bytes(COFFEE)
    (folder / os.fsdecode(b"z\xff.txt")).write_text("no picture")

    first = await shell("upload", folder)
    assert first.code == 1, first.err
    assert first.out == "6 uploaded, 1 failed\n"
    assert "f\\xff.jpg: " in first.err
    assert "1 passed over:" in first.err
    assert "z\\xff.txt: no picture" in first.err
    sent = sorted(event.data.fileName for event in web.published)
    assert len(sent) == 6
    assert "a\ufffd.jpg" in sent

    second = await shell("upload", folder)
    assert (second.code, second.out) == (1, "6 sent by an earlier run, 1 failed\n")
    assert second.err == first.err
    report = (await shell("upload", folder, "--json")).json
    assert (report["skipped"], report["failed"]) == (6, 1)
    assert [Path(each["file"]).name for each in report["passedOver"]] == ["z\\xff.txt"]


async def test_what_cannot_be_read_is_a_failure(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def head(path: Path) -> bytes:
        if path.name == "closed.jpg":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return path.read_bytes()

    monkeypatch.setattr(upload_files, "_head", head)
    for name in ("cat.jpg", "closed.jpg"):
        (tmp_path / name).write_bytes(CAT)
    ended = await shell("upload", tmp_path)
    assert (ended.code, ended.out) == (1, "1 uploaded, 1 failed\n")
    assert "closed.jpg: Permission denied" in ended.err
