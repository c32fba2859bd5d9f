"""What is transparent is white: colours of PNGs at each depth, empty alpha, parts of GIFs."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.imaging.as_shown import as_shown
from deeplens_streams.imaging.decode import decode
from tests.support.odd_headers import chunk
from tests.support.pictures import LIMIT, decoded, saved

GREY, COLOURS = 0, 2
SIDE = 64


def png(depth: int, kind: int, rows: list[bytes], clear: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", SIDE, len(rows), depth, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + each for each in rows))
    body = chunk(b"IHDR", header) + chunk(b"tRNS", clear) + chunk(b"IDAT", pixels)
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def halves(data: bytes) -> tuple[list[int], list[int]]:
    """Return what the middles of the left and the right half show."""
    pixels = decoded(data)
    return pixels[112, 50].tolist(), pixels[112, 174].tolist()


def packed(left: int, right: int, depth: int) -> bytes:
    """Return a row of grey samples, half of them the one and half the other."""
    row = [left] * (SIDE // 2) + [right] * (SIDE // 2)
    bits = "".join(f"{each:0{depth}b}" for each in row)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize(
    ("depth", "clear", "opaque", "shown"),
    [
        (1, 0, 1, 255),
        (1, 1, 0, 0),
        (2, 1, 2, 170),
        (2, 2, 1, 85),
        (4, 3, 2, 34),
        (4, 2, 3, 51),
        (4, 0x12, 3, 51),
        (8, 100, 101, 101),
        (16, 0x6401, 0x6402, 0x64),
        (16, 0x0003, 0x0300, 3),
    ],
)
def test_one_grey_is_transparent_and_its_neighbour_is_not(
    depth: int, clear: int, opaque: int, shown: int
) -> None:
    row = packed(clear & (1 << depth) - 1, opaque, depth)
    data = png(depth, GREY, [row] * SIDE, struct.pack(">H", clear))
    assert halves(data) == ([255] * 3, [shown] * 3)


@pytest.mark.parametrize("depth", [8, 16])
def test_one_colour_is_transparent_and_its_neighbour_is_not(depth: int) -> None:
    clear, opaque = (0x10, 0x20, 0x30), (0x10, 0x20, 0x31)
    form = ">3B"
    if depth == 16:
        clear, opaque, form = (0x1001, 0x2002, 0x3003), (0x1001, 0x2002, 0x3004), ">3H"
    row = struct.pack(form, *clear) * 32 + struct.pack(form, *opaque) * 32
    data = png(depth, COLOURS, [row] * 600, struct.pack(">3H", *clear))
    pixels = decode(data, UNTRAINED, max_pixels=LIMIT).pixels
    shown = [0x10, 0x20, 0x31] if depth == 8 else [0x10, 0x20, 0x30]
    assert pixels[112, 50].tolist() == [255] * 3
    assert pixels[112, 174].tolist() == shown


@pytest.mark.parametrize(("alpha", "shown"), [(0, [30, 20, 10]), (1, [254, 254, 254])])
def test_a_bitmap_whose_alpha_is_empty_is_opaque(alpha: int, shown: list[int]) -> None:
    """Where a single pixel has some, it counts for all."""
    pixels = bytearray(struct.pack("<BBBB", 10, 20, 30, 0) * SIDE * SIDE)
    pixels[3] = alpha
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    sizes = struct.pack("<IiiHHIIiiII", 124, SIDE, SIDE, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    header = sizes + masks + b"BGRs" + bytes(124 - len(sizes) - 20)
    data = b"BM" + struct.pack("<IHHI", 138 + len(pixels), 0, 0, 138) + header + pixels
    found = decoded(data)[112, 112]
    assert np.abs(found.astype(int) - shown).max() <= (0 if alpha == 0 else 1)


def gif(clear: int | None) -> bytes:
    """Return a GIF of 40 x 40 pixels whose one frame, of colour 1, covers the middle."""
    screen = struct.pack("<HHBBB", 40, 40, 0x80, 0, 0) + bytes((0, 0, 0, 200, 100, 50))
    square = Image.new("P", (20, 20), 1)
    square.putpalette(bytes((0, 0, 0, 200, 100, 50)))
    frame = saved(square, "GIF", optimize=False)
    pixels = frame[frame.index(b",\0\0\0\0") + 10 : -1]
    control = b"" if clear is None else b"\x21\xf9\4\1\0\0" + bytes([clear]) + b"\0"
    return (
        b"GIF89a"
        + screen
        + control
        + b","
        + struct.pack("<HHHHB", 10, 10, 20, 20, 0)
        + pixels
        + b";"
    )


@pytest.mark.parametrize(("clear", "middle"), [(None, [200, 100, 50]), (0, [200, 100, 50])])
def test_around_the_first_frame_of_a_gif_is_paper(clear: int | None, middle: list[int]) -> None:
    data = gif(clear)
    pixels = decoded(data)
    assert pixels[112, 112].tolist() == middle
    for row, column in ((3, 3), (112, 3), (112, 220), (220, 112)):
        assert pixels[row, column].tolist() == [255] * 3


def test_most_pictures_are_shown_as_they_are() -> None:
    for name in ("PNG", "GIF", "BMP", "TIFF", "JPEG"):
        data = saved(Image.new("L", (8, 8)), name)
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert as_shown(image, data) is image
