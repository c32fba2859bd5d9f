"""TIFFs whose planes, palettes and tables of strips Pillow alone misreads, written byte by byte."""

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile

from deeplens_streams.errors import UndecodableImage, UnsupportedKind
from deeplens_streams.imaging.header import inspect
from tests.support.pictures import LIMIT, decoded

SIDE = 32
_SHORT, _LONG = 3, 4
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE = 0, 1, 3


def planes(*values: int, scale: int = 1, **options: Any) -> bytes:
    """Return a picture of one colour, each sample in a plane of its own, by tifffile."""
    kind = np.uint8 if scale == 1 else np.uint16
    samples = np.stack([np.full((SIDE, SIDE), each * scale, kind) for each in values])
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, planarconfig="separate", **options)
    return buffer.getvalue()


def strips(*parts: bytes, bits: int = 8, meaning: int = _BLACK_IS_ZERO, **told: Any) -> bytes:
    """Return an uncompressed picture of these strips, or tiles.

    Parameters
    ----------
    told : `side`, `rows` of a strip or side of a `tile`, `samples`, and 1 or 2 for how they are
        `planar`; `extra`, what the last sample is, and `colours`, the entries of a palette.
    """
    side, samples = told.get("side", SIDE), told.get("samples", 1)
    places = np.cumsum([8, *map(len, parts)])[:-1].tolist()
    tags = {
        256: (_LONG, (side,)),
        257: (_LONG, (side,)),
        258: (_SHORT, (bits,) * samples),
        259: (_SHORT, (1,)),
        262: (_SHORT, (meaning,)),
        273: (_LONG, places),
        277: (_SHORT, (samples,)),
        278: (_LONG, (told.get("rows", side),)),
        279: (_LONG, [len(each) for each in parts]),
        284: (_SHORT, (told.get("planar", 1),)),
        320: (_SHORT, told.get("colours", ())),
        338: (_SHORT, (told["extra"],) if "extra" in told else ()),
    }
    if "tile" in told:
        tags |= dict.fromkeys((322, 323), (_LONG, (told["tile"],)))
        tags |= {324: tags.pop(273), 325: tags.pop(279)}
        del tags[278]
    tags = {tag: each for tag, each in sorted(tags.items()) if each[1]}
    body = b"".join(parts)
    entries, behind = b"", b""
    after = 8 + len(body) + 2 + 12 * len(tags) + 4
    for tag, (kind, numbers) in tags.items():
        content = struct.pack(f"<{len(numbers)}{'H' if kind == _SHORT else 'I'}", *numbers)
        entries += struct.pack("<HHI", tag, kind, len(numbers))
        if len(content) > 4:
            entries += struct.pack("<I", after + len(behind))
            behind += content
        else:
            entries += content.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", 8 + len(body))
    return head + body + struct.pack("<H", len(tags)) + entries + bytes(4) + behind


def shown(data: bytes) -> list[list[int]]:
    """Return the colours that are seen."""
    return np.unique(decoded(data).reshape(-1, 3), axis=0).tolist()


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"rowsperstrip": 8}])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("values", "extra", "colour"),
    [
        ((100, 7), ["unspecified"], (100, 100, 100)),
        ((10, 100, 200, 7), ["unspecified"], (10, 100, 200)),
        # On white: 128 of 255 are of the colour, or in it already, and 127 of 255 are white.
        ((10, 100, 200, 128), ["unassalpha"], (132, 177, 227)),
        ((5, 50, 100, 128), ["assocalpha"], (132, 177, 227)),
        ((10, 100, 200, 128, 7), ["unassalpha", "unspecified"], (132, 177, 227)),
        ((5, 50, 100, 128, 7), ["assocalpha", "unspecified"], (132, 177, 227)),
    ],
)
def test_planes_that_are_no_colour_change_none(
    values: tuple[int, ...],
    extra: list[str],
    colour: tuple[int, ...],
    compression: str | None,
    layout: dict[str, Any],
) -> None:
    meaning = "rgb" if len(values) > 2 else "minisblack"
    options: dict[str, Any] = {
        "photometric": meaning,
        "extrasamples": extra,
        "compression": compression,
    } | layout
    for scale in (1, 257) if len(values) < 5 else (1,):
        (found,) = shown(planes(*values, scale=scale, **options))
        assert np.abs(np.array(found) - colour).max() <= 1


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha"])
def test_alpha_in_a_plane_beside_grey_is_a_kind_that_nothing_reads(
    extra: str, compression: str | None
) -> None:
    options: dict[str, Any] = {
        "photometric": "minisblack",
        "extrasamples": [extra],
        "compression": compression,
    }
    with pytest.raises(UnsupportedKind, match="alpha in a plane"):
        inspect(io.BytesIO(planes(100, 255, **options)), max_pixels=LIMIT)


def test_alpha_in_a_plane_beside_a_palette_is_a_kind_that_nothing_reads() -> None:
    plane = bytes(SIDE * SIDE)
    colours = (257 * 10,) * 256 + (257 * 100,) * 256 + (257 * 200,) * 256
    options: dict[str, Any] = {
        "meaning": _PALETTE,
        "samples": 2,
        "extra": 2,
        "planar": 2,
        "colours": colours,
    }
    with pytest.raises(UnsupportedKind, match="alpha in a plane"):
        inspect(io.BytesIO(strips(plane, plane, **options)), max_pixels=LIMIT)


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize(
    ("bits", "meaning", "content", "grey"),
    [
        (4, _BLACK_IS_ZERO, b"\x88", 136),
        (12, _BLACK_IS_ZERO, b"\x80\x08\x00", 128),
        (16, _WHITE_IS_ZERO, b"\0\x40", 191),
    ],
)
def test_one_plane_is_the_same_as_none(
    bits: int, meaning: int, content: bytes, grey: int, planar: int
) -> None:
    strip = content * (SIDE * SIDE * bits // 8 // len(content))
    data = strips(strip, bits=bits, meaning=meaning, planar=planar)
    assert shown(data) == [[grey] * 3]


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("lab", "colour"),
    [
        # By the formulas of CIE Lab at D50, brought to sRGB's white by Bradford's matrix.
        ((128, 0, 0), (119, 119, 119)),
        ((100, 20, -20), (112, 81, 125)),
        ((150, -40, 30), (70, 159, 85)),
    ],
)
def test_planes_of_lab_have_signs(
    lab: tuple[int, ...], colour: tuple[int, ...], compression: str | None
) -> None:
    stored = (each % 256 for each in lab)
    (found,) = shown(planes(*stored, photometric="cielab", compression=compression))
    assert np.abs(np.array(found) - colour).max() <= 2


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("rows", [8, 12, 31])
def test_a_table_of_fewer_strips_than_the_size_needs_is_damage(rows: int, planar: int) -> None:
    strip = b"\x64" * (rows * SIDE)
    needed = -(-SIDE // rows)
    assert shown(strips(*[strip] * needed, rows=rows, planar=planar)) == [[100] * 3]
    with pytest.raises(UndecodableImage):
        decoded(strips(*[strip] * (needed - 1), rows=rows, planar=planar))


@pytest.mark.parametrize("rows", [SIDE, SIDE + 1, 2**32 - 1])
def test_one_strip_may_be_of_more_rows_than_there_are(rows: int) -> None:
    assert shown(strips(b"\x64" * (SIDE * SIDE), rows=rows)) == [[100] * 3]


@pytest.mark.parametrize("planar", [1, 2])
def test_a_table_of_fewer_tiles_than_the_size_needs_is_damage(planar: int) -> None:
    tile = b"\x64" * (16 * 16)
    assert shown(strips(*[tile] * 4, tile=16, planar=planar)) == [[100] * 3]
    with pytest.raises(UndecodableImage):
        decoded(strips(*[tile] * 3, tile=16, planar=planar))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("entries", "colour"),
    [
        ((10, 100, 255), [10, 100, 255]),  # bytes
        ((10 * 257, 100 * 257, 255 * 257), [10, 100, 255]),
        ((10, 100, 256), [0, 0, 1]),  # 16 bits, and nearly black
    ],
)
def test_a_palette_of_bytes_is_taken_as_it_is(
    entries: tuple[int, ...], colour: list[int], bits: int
) -> None:
    colours = [each for entry in entries for each in [0] * 5 + [entry] + [0] * (2**bits - 6)]
    pixels = (b"\5" if bits == 8 else b"\x55") * (SIDE * SIDE * bits // 8)
    assert shown(strips(pixels, bits=bits, meaning=_PALETTE, colours=colours)) == [colour]


def test_a_palette_of_bytes_may_have_alpha_beside_it() -> None:
    colours = (10,) * 256 + (100,) * 256 + (255,) * 256
    options: dict[str, Any] = {"meaning": _PALETTE, "samples": 2, "extra": 2, "colours": colours}
    (found,) = shown(strips(b"\5\xff" * (SIDE * SIDE), **options))
    assert found == [10, 100, 255]
