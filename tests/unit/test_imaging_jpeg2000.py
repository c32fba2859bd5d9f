"""JPEG 2000: as it was made, reduced where that suffices, and weighed by what its decoder keeps."""

import io
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from deeplens_streams.errors import (
    DeepLensError,
    TooManyPixels,
    UndecodableImage,
    UnsupportedKind,
)
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.imaging import codestream
from deeplens_streams.imaging.codestream import read_codestream
from deeplens_streams.imaging.decode import decode
from deeplens_streams.imaging.formats import J2C, JP2, identify
from deeplens_streams.imaging.header import inspect
from deeplens_streams.imaging.jpeg2000 import Jpeg2000
from tests.support.odd_headers import box, boxes, small
from tests.support.photographs import photograph
from tests.support.pictures import LIMIT, decoded, difference, quadrants, saved, sizes

PLAIN = saved(quadrants(), "JPEG2000")
BARE = saved(quadrants(), "JPEG2000", no_jp2=True)


def opened(data: bytes) -> Jpeg2000:
    return Jpeg2000(io.BytesIO(data))


def test_both_forms_are_told_by_content() -> None:
    for data, form, media_type in ((PLAIN, JP2, "image/jp2"), (BARE, J2C, "image/j2c")):
        assert identify(data) is form
        header = inspect(io.BytesIO(data), max_pixels=LIMIT)
        assert (header.format, header.content_type) == ("JPEG2000", media_type)
        assert difference(decoded(data), decoded(saved(quadrants(), "PNG"))) < 1.5


def test_a_path_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    path.write_bytes(PLAIN)
    assert inspect(path, max_pixels=LIMIT).width == 320


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16"])
def test_modes_decode_to_what_they_were_made_of(mode: str) -> None:
    if mode == "I;16":
        deep = np.asarray(quadrants().convert("L")).astype(np.uint16) * 257
        data, shown = saved(Image.fromarray(deep), "JPEG2000"), quadrants().convert("L")
    else:
        made = quadrants().convert(mode)
        if mode in {"LA", "RGBA"}:
            made.putalpha(Image.new("L", made.size, 128))
        data, shown = saved(made, "JPEG2000"), made
    assert difference(decoded(data), decoded(saved(shown, "PNG"))) < 1.5


# Reduced ------------------------------------------------------------------------------------------


def large() -> Image.Image:
    with Image.open(io.BytesIO(photograph("china").data)) as image:
        return image.convert("L").resize((1536, 1600), Image.Resampling.BICUBIC)


def test_a_large_one_is_decoded_at_a_part_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    halve = Jpeg2000.halve

    def noted(self: Jpeg2000, times: int) -> None:
        asked.append(times)
        halve(self, times)

    monkeypatch.setattr(Jpeg2000, "halve", noted)
    data = saved(large(), "JPEG2000", quality_mode="rates", quality_layers=[20])
    found = decode(data, UNTRAINED, max_pixels=LIMIT, thumbnail_px=256)
    assert (asked, found.width, found.height) == ([1], 1536, 1600)
    assert difference(found.pixels, decoded(saved(large(), "PNG"))) < 2
    with Image.open(io.BytesIO(found.thumbnail or b"")) as thumbnail:
        assert thumbnail.size == (246, 256)


def test_it_is_reduced_no_further_than_its_coding_has_levels() -> None:
    data = saved(large(), "JPEG2000", num_resolutions=1)
    assert opened(data).levels == 0
    assert sizes(data) == ((1536, 1600), (1536, 1600))


def test_numbers_of_colours_are_not_averaged() -> None:
    assert opened(with_palette(PLAIN_NUMBERS)).levels == 0
    shown = Image.fromarray(np.full((64, 64), 1, np.uint8))
    shown.putpalette([0, 0, 0, 255, 0, 0])
    found = decoded(with_palette(PLAIN_NUMBERS))
    assert difference(found, decoded(saved(shown.convert("RGB"), "PNG"))) == 0


PLAIN_NUMBERS = saved(Image.new("L", (64, 64), 1), "JPEG2000")


def with_palette(data: bytes) -> bytes:
    """Return a grey picture whose levels are numbers of black and red."""
    colours = struct.pack(">HB3B", 2, 3, 7, 7, 7) + bytes([0, 0, 0, 255, 0, 0])
    mapped = b"".join(struct.pack(">HBB", 0, 1, each) for each in range(3))
    return changed(
        data, colr=b"\1\0\0" + struct.pack(">I", 16), more=[(b"pclr", colours), (b"cmap", mapped)]
    )


def changed(data: bytes, *, colr: bytes, more: list[tuple[bytes, bytes]]) -> bytes:
    """Return a file with another box of colours, and more boxes behind it."""
    made = b""
    for kind, body in boxes(data):
        if kind == b"jp2h":
            inner = [each for each in boxes(body) if each[0] != b"colr"]
            made += box(kind, b"".join(box(*each) for each in [*inner, (b"colr", colr), *more]))
        else:
            made += box(kind, body)
    return made


def test_a_profile_is_kept_to() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = changed(PLAIN, colr=b"\2\0\0" + profile, more=[])
    header = inspect(io.BytesIO(data), max_pixels=LIMIT)
    assert header.color_profile == "sRGB built-in"
    assert difference(decoded(data), decoded(PLAIN)) == 0


# What its decoder takes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "options", "bytes_a_pixel"),
    [
        ("RGB", {}, 18),
        ("L", {}, 6),
        ("RGBA", {}, 23),
        ("RGB", {"codeblock_size": (4, 4)}, 102),
        ("RGB", {"codeblock_size": (4, 4), "precinct_size": (64, 64)}, 114),
        ("RGB", {"tile_size": (32, 32)}, 29),
    ],
)
def test_small_blocks_and_tiles_weigh_more(
    mode: str, options: dict[str, object], bytes_a_pixel: int
) -> None:
    data = saved(Image.new(mode, (256, 256)), "JPEG2000", **options)
    assert opened(data).decoder_bytes == bytes_a_pixel
    whole = bytes_a_pixel + {"RGB": 4, "L": 1, "RGBA": 8}[mode]
    limit = 256 * 256 * whole // 4
    assert inspect(io.BytesIO(data), max_pixels=limit).width == 256
    with pytest.raises(TooManyPixels):
        inspect(io.BytesIO(data), max_pixels=limit - 1)


def test_what_a_tile_says_of_its_blocks_counts() -> None:
    at = BARE.index(b"\xff\x93")
    coding = BARE.index(b"\xff\x52")
    length = struct.unpack_from(">H", BARE, coding + 2)[0]
    other = bytearray(BARE[coding : coding + 2 + length])
    other[9], other[10], other[11] = 0, 0, 0  # no levels, blocks of 4 x 4
    tile = BARE.index(b"\xff\x90")
    whole = struct.unpack_from(">I", BARE, tile + 6)[0]
    for size in (whole + len(other), 0):  # without a size it is the last one
        data = bytearray(BARE[:at] + other + BARE[at:])
        struct.pack_into(">I", data, tile + 6, size)
        told = read_codestream(memoryview(bytes(data)))
        assert told.levels == 0
        assert told.records >= 450 / 16
    told = read_codestream(memoryview(BARE))
    assert told.levels == 5
    assert told.records < 1


# Strangers' ---------------------------------------------------------------------------------------


def with_size(data: bytes, offset: int, form: str, *put: int) -> bytes:
    """Return a picture whose codestream's segment of its size has other numbers."""
    at, told = data.index(b"\xff\x51"), bytearray(data)
    struct.pack_into(form, told, at + offset, *put)
    return bytes(told)


@pytest.mark.parametrize("width", [1, 319, 50_000])
def test_a_codestream_of_another_size_than_the_header_tells_is_damaged(width: int) -> None:
    for look in (lambda each: inspect(io.BytesIO(each), max_pixels=LIMIT), decoded):
        with pytest.raises(UndecodableImage):
            look(with_size(PLAIN, 6, ">I", width))


def test_a_bare_one_is_as_large_as_it_says() -> None:
    with pytest.raises(TooManyPixels):
        inspect(io.BytesIO(with_size(BARE, 6, ">II", 60_000, 60_000)), max_pixels=LIMIT)


def test_more_bits_than_are_read_are_an_unknown_kind() -> None:
    with pytest.raises(UnsupportedKind, match="20 bits"):
        inspect(io.BytesIO(with_size(PLAIN, 40, ">B", 19)), max_pixels=LIMIT)


def test_segments_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codestream, "_SEGMENTS", 4)
    with pytest.raises(UndecodableImage):
        inspect(io.BytesIO(PLAIN), max_pixels=LIMIT)


def test_damage_anywhere_ends_in_one_of_our_errors() -> None:
    for data in (small("JPEG2000"), small("JPEG2000", no_jp2=True)):
        for keep in range(12, len(data) - 2, 3):
            with pytest.raises((UndecodableImage, UnsupportedKind)):
                decoded(data[:keep])
        head = bytearray(data)
        for at in range(12, data.index(b"\xff\x93")):
            head[at] ^= 0xFF
            with suppress(DeepLensError):
                assert decode(bytes(head), UNTRAINED, max_pixels=100_000).pixels.any() in {0, 1}
            head[at] ^= 0xFF
