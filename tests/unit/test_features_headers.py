"""Headers of strangers: reading one takes about as much memory as the file has bytes."""

import io
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, TiffImagePlugin
from pillow_heif import from_pillow, register_heif_opener

from deeplens_streams.errors import TooManyPixels, UndecodableImage, UnsupportedKind
from deeplens_streams.features import headers
from deeplens_streams.features.decoding import decode
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.features.pictures import inspect, open_picture
from tests.header_bombs import (
    exif,
    exif_in_pieces,
    gif,
    header_bombs,
    heic,
    png,
    small,
    tiff,
)

register_heif_opener()
LIMIT = 100_000_000
BYTES = 5_000_000
MOST_BYTES = 30_000_000

#: Each picture is read in a process of its own, with nothing freed before that could be used again.
PROGRAM = """
import io, json, os, resource, sys, warnings
from pathlib import Path
from deeplens_streams.errors import DeepLensError
from deeplens_streams.features.pictures import inspect

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def look(path):
    warnings.simplefilter("ignore")
    before = peak()
    try:
        inspect(path, max_pixels=100_000_000)
    except DeepLensError:
        pass
    return peak() - before

look(Path(sys.argv[1]))
for path in map(Path, sys.argv[1:]):
    if os.fork() == 0:
        print(json.dumps([path.name, look(path)]), flush=True)
        os._exit(0)
    os.wait()
"""


def test_no_header_takes_more_than_its_bytes_are(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.write_bytes(small("PNG"))
    paths = [ordinary]
    for name, data in header_bombs(BYTES).items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    command = [sys.executable, "-c", PROGRAM, *map(str, paths)]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()
    took = dict(json.loads(line) for line in lines)
    assert took.keys() == {each.name for each in paths}
    assert {name: each for name, each in took.items() if each > MOST_BYTES} == {}


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (65_535, 65_535)])
def test_a_gif_of_a_few_bytes_is_refused_for_its_size(width: int, height: int) -> None:
    data = gif(width, height)
    assert len(data) < 50
    with pytest.raises(TooManyPixels, match=f"{width:,} x {height:,}"):
        inspect(io.BytesIO(data), max_pixels=LIMIT)


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
        tiff(BYTES, [(40_000, 5, BYTES // 8 - 1000, 8)]),
        tiff(BYTES, [(ExifTags.Base.XResolution, 5, BYTES // 8 - 1000, 8)]),
        png(b"eXIf", exif(100_000, ExifTags.Base.XResolution)),
        exif_in_pieces(exif(60_000), 65_000),
        small("WEBP", exif=b"Exif\0\0" + exif(100_000)),
        small("AVIF", exif=exif(100_000)),
        heic(100_000),
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
    monkeypatch.setattr(headers, "_PIECES", 50)
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
