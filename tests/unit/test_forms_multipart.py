"""The form reader, however the network cuts a form."""

import os
from pathlib import Path

import pytest

from deeplens_streams.errors import BadRequest
from deeplens_streams.ingest.spool import Spool
from deeplens_streams.web.forms.fields import safe_file_name
from deeplens_streams.web.forms.multipart import _Reader

# What looks like the boundary, and is not, belongs to the picture.
PICTURE = b"\r\n--limi\r\n--limit?\r\r\n\r\n----limit" + bytes(range(256)) + b"\r\n--"
BODY = (
    b"preamble\r\n"
    b'--limit\r\nContent-Disposition: form-data; name="tenantId"\r\n\r\ndemo\r\n'
    b'--limit\r\ncontent-disposition: form-data; name="file"; filename="a\xc3\xa4.jpg"\r\n'
    b"Content-Type: text/html\r\n\r\n" + PICTURE + b"\r\n"
    b'--limit\r\nContent-Disposition: form-data; name="other"; filename="b"\r\n\r\nxx\r\n'
    b'--limit\r\nContent-Disposition: form-data; name="tags[a]"\r\n\r\n\xc3\xa4\r\n'
    b"--limit--\r\nepilogue"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
async def test_any_cut(tmp_path: Path, size: int) -> None:
    spool = Spool(tmp_path)
    async with spool.open() as file:
        reader = _Reader(b"limit", "file", file)
        body = BODY.removeprefix(b"preamble\r\n")
        for start in range(0, len(body), size):
            reader.feed(body[start : start + size])
        _, content = await file.finish(lambda file: file.read())
        assert content == PICTURE
        assert file.size == len(PICTURE)
        assert reader.ended
        assert reader.form.file_name == "aä.jpg"
        assert reader.form.fields == [("tenantId", "demo"), ("tags[a]", "ä")]
        assert list(reader.form.entries("tags")) == [("a", "ä")]
    assert not os.listdir(tmp_path)  # noqa: PTH208 -- an async test may not use a Path for it
    spool.close()


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ('filename="a.jpg"', "a.jpg"),
        ("filename*=UTF-8''na%C3%AFve.jpg", "naïve.jpg"),
        ("filename=\"=?utf-8?B?bmHDr3Zl?=\"; filename*=utf-8'en'na%C3%AFve.jpg", "naïve.jpg"),
        ("filename*=iso-8859-1''na%EFve.jpg; filename=\"b\"", "naïve.jpg"),
        ("filename=\"; filename*=UTF-8''no.jpg\"", "; filename*=UTF-8''no.jpg"),
        ("filename=\"a.jpg\"; filename*=other''no.jpg", "a.jpg"),
        ("filename=\"a.jpg\"; filename*=UTF-8''", "a.jpg"),
    ],
)
async def test_what_a_file_is_called(tmp_path: Path, said: str, name: str) -> None:
    spool = Spool(tmp_path)
    async with spool.open() as file:
        reader = _Reader(b"x", "file", file)
        header = b'--x\r\nContent-Disposition: form-data; name="file"; ' + said.encode()
        reader.feed(header + b"\r\n\r\nbytes\r\n--x--")
        assert reader.form.file_name == name
    spool.close()


def test_a_field_is_there_once() -> None:
    spool_less = _Reader(b"x", "file", None)  # type: ignore[arg-type] # no picture comes
    spool_less.form.fields = [("a", "1"), ("b", " "), ("a", "2")]
    assert spool_less.form.one("b") is None
    with pytest.raises(BadRequest):
        spool_less.form.one("a")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("", "image"),
        (".", "image"),
        ("a/b\\c.png", "c.png"),
        ("a\x00\x1b[31mb.png", "a[31mb.png"),
        (" a b .png ", "a b .png"),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
        ("x" * 400, "x" * 255),
    ],
)
def test_safe_file_name(given: str, shown: str) -> None:
    assert safe_file_name(given) == shown
