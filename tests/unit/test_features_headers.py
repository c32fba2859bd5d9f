"""Headers of strangers: reading one takes about as much memory as the file has bytes."""

import io
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin
from pillow_heif import from_pillow, register_heif_opener

from deeplens_streams.errors import TooManyPixels, UndecodableImage, UnsupportedKind
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.imaging import header, isobmff, pillow_limits
from deeplens_streams.imaging.decode import decode
from deeplens_streams.imaging.header import inspect, open_picture
from tests.support.odd_headers import (
    exif,
    exif_in_pieces,
    gif,
    heic,
    odd_headers,
    png,
    small,
    tiff,
)

register_heif_opener()
LIMIT = 100_000_000
#: What reading a header may take, in bytes of Python's own; without guards stand-ins take more.
MOST_BYTES = 200_000


@pytest.fixture
def lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower every guard's limit, so that kilobytes are too much."""
    monkeypatch.setattr(pillow_limits, "_PIECES", 500)
    monkeypatch.setattr(header, "EXIF_BYTES", 40_000)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 20_000)
    monkeypatch.setattr(isobmff, "_FLOOR", 0)
    monkeypatch.setattr(isobmff, "_DESCRIBED", 100_000)
    for tag in pillow_limits._MORE_NUMBERS:
        monkeypatch.setitem(pillow_limits._MORE_NUMBERS, tag, 100)


@pytest.mark.usefixtures("lowered")
@pytest.mark.parametrize("name", odd_headers())
def test_no_header_takes_more_than_its_guard_lets_it(name: str) -> None:
    data = odd_headers()[name]
    inspect(io.BytesIO(small("PNG")), max_pixels=LIMIT)
    file = io.BytesIO(data)
    tracemalloc.start()
    try:
        with suppress(TooManyPixels, UndecodableImage, UnsupportedKind):
            inspect(file, max_pixels=LIMIT)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def test_without_guards_a_stand_in_takes_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the limit of the test above would tell nothing."""
    monkeypatch.setattr(isobmff, "_FLOOR", 10**9)
    file = io.BytesIO(odd_headers()["HEIC, items over one another"])
    tracemalloc.start()
    try:
        inspect(file, max_pixels=LIMIT)
        assert tracemalloc.get_traced_memory()[1] > 10 * MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("width", "height"), [(3_000, 300), (1_001, 1_000)])
def test_a_gif_of_a_few_bytes_is_refused_for_its_size(width: int, height: int) -> None:
    data = gif(width, height)
    assert len(data) < 50
    with pytest.raises(TooManyPixels, match=f"{width:,} x {height:,}"):
        inspect(io.BytesIO(data), max_pixels=800_000)


def test_what_follows_the_first_frame_of_a_gif_is_not_prepared() -> None:
    with open_picture(io.BytesIO(gif(100, 100)), max_pixels=LIMIT) as (image, _):
        assert image.dispose is None  # type: ignore[attr-defined]


def frames() -> list[Image.Image]:
    return [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue")]


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_the_first_frame_is_the_same_whatever_becomes_of_it(disposal: int) -> None:
    buffer, (first, *others) = io.BytesIO(), frames()
    first.save(buffer, "GIF", save_all=True, append_images=others, disposal=disposal)
    found = decode(buffer.getvalue(), UNTRAINED, max_pixels=LIMIT)
    assert (found.pixels == (255, 0, 0)).all()


@pytest.mark.parametrize(
    "data",
    [
        tiff(10_000, [(40_000, 5, 200, 8)]),
        tiff(10_000, [(ExifTags.Base.XResolution, 5, 200, 8)]),
        png(b"eXIf", exif(10_000, ExifTags.Base.XResolution)),
        exif_in_pieces(exif(10_000), 65_000),
        small("WEBP", exif=b"Exif\0\0" + exif(10_000)),
        small("AVIF", exif=exif(10_000)),
        heic(10_000),
    ],
    ids=["TIFF", "TIFF, a known tag", "PNG", "JPEG", "WebP", "AVIF", "HEIC"],
)
def test_long_tags_are_not_decoded(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    class Counted(TiffImagePlugin.IFDRational):
        def __init__(self, *args: object) -> None:
            nonlocal made
            made += 1
            super().__init__(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(TiffImagePlugin, "IFDRational", Counted)
    assert inspect(io.BytesIO(data), max_pixels=LIMIT).width in {32, 64}
    assert made <= 16


def test_a_large_block_of_exif_is_passed_over() -> None:
    read = Image.Exif()
    read[ExifTags.Base.Make] = "Maker"
    block = read.tobytes().removeprefix(b"Exif\0\0")
    for padding, found in ((200_000, {"Make": "Maker"}), (300_000, None)):
        data = png(b"eXIf", block + bytes(padding))
        assert inspect(io.BytesIO(data), max_pixels=LIMIT).exif == found


def test_of_several_blocks_of_exif_in_a_jpeg_the_first_counts() -> None:
    first, second = Image.Exif(), Image.Exif()
    first[ExifTags.Base.Make], second[ExifTags.Base.Make] = "One", "Two"
    blocks = [each.tobytes().removeprefix(b"Exif\0\0") for each in (first, second)]
    both = exif_in_pieces(blocks[0] + blocks[1], len(blocks[0]))
    assert inspect(io.BytesIO(both), max_pixels=LIMIT).exif == {"Make": "One"}


def test_a_tiff_tells_what_it_told_before() -> None:
    told = Image.Exif()
    told[ExifTags.Base.Make] = "Maker"
    told.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.8
    told.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 8.0, 1.0)
    data = small("TIFF", exif=told.tobytes())
    found = inspect(io.BytesIO(data), max_pixels=LIMIT, keep_gps=True).exif
    assert found is not None
    assert (found["Make"], found["FNumber"]) == ("Maker", pytest.approx(2.8))
    assert found["GPSInfo"] == {"GPSLatitude": [48.0, 8.0, 1.0]}


def test_ordinary_long_headers_are_read() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (3_000, 8), np.uint8)
    strips, palette = io.BytesIO(), io.BytesIO()
    tifffile.imwrite(strips, grey, rowsperstrip=1, photometric="minisblack")
    Image.fromarray(grey).quantize(256).save(palette, "TIFF")
    comments = io.BytesIO()
    Image.new("L", (8, 8)).save(comments, "GIF", comment=b"x" * 3_000_000)
    segment = b"\xff\xe1\xff\xff" + bytes(65_533)  # as phones keep depths
    segments = small("JPEG")[:2] + segment * 100 + small("JPEG")[2:]
    several = from_pillow(frames()[0])
    for each in frames()[1:]:
        several.add_from_pillow(each)
    heif = io.BytesIO()
    several.save(heif, exif=exif(2_000), xmp=b"<x/>" * 100)
    for data in (*(each.getvalue() for each in (strips, palette, comments, heif)), segments):
        width = inspect(io.BytesIO(data), max_pixels=LIMIT).width
        assert decode(data, UNTRAINED, max_pixels=LIMIT).width == width


def test_a_header_of_too_many_pieces_is_not_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pillow_limits, "_PIECES", 50)
    reads = 0

    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal reads
            reads += 1
            return super().read(size)

    inspect(Source(small("JPEG")), max_pixels=LIMIT)
    reads, data = 0, small("JPEG")
    with pytest.raises(UndecodableImage):
        inspect(Source(data[:2] + b"\xff\xe5\0\2" * 1_000 + data[2:]), max_pixels=LIMIT)
    assert reads < 60


@pytest.mark.parametrize("name", ["AVIF", "HEIF"])
def test_damaged_boxes_are_a_damaged_picture(name: str) -> None:
    data = small(name)
    begin = data.index(b"meta") - 4
    for at in range(begin, begin + 200):
        for changed in (0, 1, 255):
            damaged = data[:at] + bytes([changed]) + data[at + 1 :]
            with suppress(TooManyPixels, UndecodableImage, UnsupportedKind):
                inspect(io.BytesIO(damaged), max_pixels=LIMIT)
