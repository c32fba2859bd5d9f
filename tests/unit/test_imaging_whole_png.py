"""A PNG whose stream ends in good order, and too early, is damaged."""

import io
import struct
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from deeplens_streams.errors import UndecodableImage
from deeplens_streams.imaging import whole_png
from deeplens_streams.imaging.whole_png import WholePng
from tests.support.odd_headers import chunk
from tests.support.pictures import decoded, saved

SIDE = 64
#: In which pass a pixel comes, by its row and column, over and over.
PASSES = (
    *("16462646", "77777777", "56565656", "77777777"),
    *("36463646", "77777777", "56565656", "77777777"),
)
#: That of the mark: whether such a picture is whole only counting tells.
GREY = 77


def png(width: int, height: int, rows: list[bytes], *, interlaced: bool) -> bytes:
    """Return a grey PNG of 8 bits with these rows, each behind the number of its filter."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    pixels = zlib.compress(b"".join(rows))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def rows_of(width: int, height: int, *, interlaced: bool) -> list[bytes]:
    """Return the rows of a plain picture, pass by pass."""
    if not interlaced:
        return [b"\0" + bytes([GREY] * width)] * height
    rows = []
    for each in "1234567":
        for y in range(height):
            count = sum(PASSES[y % 8][x % 8] == each for x in range(width))
            rows += [b"\0" + bytes([GREY] * count)] if count else []
    return rows


def with_rows(data: bytes, rows: int) -> bytes:
    """Return the PNG with a stream that ends in good order behind so many of its rows."""
    at = data.index(b"IDAT")
    length = int.from_bytes(data[at - 4 : at], "big")
    whole = zlib.decompress(data[at + 4 : at + 4 + length])
    part = zlib.compress(whole[: len(whole) // SIDE * rows])
    return data[: at - 4] + chunk(b"IDAT", part) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", list(whole_png._MARKS))
def test_rows_that_are_missing_are_damage(mode: str) -> None:
    data = saved(Image.new(mode, (SIDE, SIDE)), "PNG")
    assert WholePng(io.BytesIO(data)).mode == mode
    decoded(with_rows(data, SIDE))
    for rows in (0, SIDE // 2, SIDE - 1):
        with pytest.raises(UndecodableImage):
            decoded(with_rows(data, rows))


@pytest.mark.parametrize("mode", list(whole_png._MARKS))
def test_a_picture_of_the_marks_colour_is_whole(mode: str) -> None:
    image = Image.new(mode, (SIDE, SIDE), whole_png._MARKS[mode])
    if mode == "P":
        image.putpalette(bytes(768))
    with WholePng(io.BytesIO(saved(image, "PNG"))) as opened:
        assert opened.tobytes() == image.tobytes()


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("width", range(1, 10))
@pytest.mark.parametrize("height", range(1, 10))
def test_rows_of_pictures_of_any_size_are_counted(
    width: int, height: int, interlaced: bool
) -> None:
    rows = rows_of(width, height, interlaced=interlaced)
    whole = png(width, height, rows, interlaced=interlaced)
    with WholePng(io.BytesIO(whole)) as opened:
        assert opened.tobytes() == bytes([GREY] * width * height)
    short = png(width, height, rows[:-1], interlaced=interlaced)
    with WholePng(io.BytesIO(short)) as opened, pytest.raises(OSError, match=r"missing|truncated"):
        opened.load()


def test_usual_pictures_are_not_unpacked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.new("RGB", (SIDE, SIDE), "teal"), "PNG")
    monkeypatch.delattr(WholePng, "_count_rows")
    with WholePng(io.BytesIO(data)) as opened, PngImageFile(io.BytesIO(data)) as plain:
        assert opened.tobytes() == plain.tobytes()


def test_many_chunks_and_long_rows_are_counted_over_their_bounds() -> None:
    row = b"\0" + bytes([GREY] * 200_000)
    pixels = zlib.compress(row * 3)
    whole = png(200_000, 3, [row] * 3, interlaced=False)
    at, end = whole.index(b"IDAT") - 4, len(chunk(b"IEND", b""))
    pieces = [pixels[each : each + 7] for each in range(0, len(pixels), 7)]
    split = whole[:at] + b"".join(chunk(b"IDAT", each) for each in pieces) + whole[-end:]
    with WholePng(io.BytesIO(split)) as opened:
        assert opened.tobytes() == bytes([GREY] * 600_000)
