"""Which way is up: the container's turn in HEIC and AVIF, EXIF in all else, XMP nowhere."""

import io
import struct

import pytest
from PIL import ExifTags, Image, PngImagePlugin
from pillow_heif import register_heif_opener

from deeplens_streams.imaging.header import inspect
from deeplens_streams.imaging.late_exif import late_exif
from tests.support.odd_headers import chunk
from tests.support.pictures import LIMIT, decoded, difference, quadrants, saved, sizes

register_heif_opener()
UPRIGHT = decoded(saved(quadrants(), "PNG"))
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"'
    b"/></rdf:RDF></x:xmpmeta>"
)
_LOSSY = 4.0


def exif(turn: int) -> bytes:
    told = Image.Exif()
    told[ExifTags.Base.Orientation] = turn
    return told.tobytes().removeprefix(b"Exif\0\0")


def behind_pixels(data: bytes, kind: bytes, body: bytes) -> bytes:
    """Return a PNG with one more chunk before its end, which takes twelve bytes."""
    return data[:-12] + chunk(kind, body) + data[-12:]


def with_xmp(name: str) -> bytes:
    if name == "TIFF":
        return saved(quadrants(), name, tiffinfo={700: XMP})
    if name == "PNG":
        data = saved(quadrants(), name)
        return data[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP) + data[33:]
    # What is written as upright, or libheif's encoder would turn it.
    written = saved(quadrants(), name, xmp=XMP.replace(b'"6"', b'"1"'), quality=95)
    return written.replace(b'tiff:Orientation="1"', b'tiff:Orientation="6"')


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_xmp_turns_nothing(name: str) -> None:
    data = with_xmp(name)
    assert b'tiff:Orientation="6"' in data
    assert sizes(data) == ((320, 240), (320, 240))
    assert difference(decoded(data), UPRIGHT) < _LOSSY


def test_exif_in_a_text_of_a_png_turns_nothing() -> None:
    block = b"Exif\0\0" + exif(6)
    text = f"\nexif\n{len(block):8}\n{block.hex()}\n"
    told = PngImagePlugin.PngInfo()
    told.add_text("Raw profile type exif", text)
    data = saved(quadrants(), "PNG", pnginfo=told)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.getexif()[274] == 6
    assert (decoded(data) == UPRIGHT).all()
    assert sizes(data) == ((320, 240), (320, 240))


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_exif_behind_the_pixels_of_a_png_counts(turn: int) -> None:
    undo = {3: 180, 6: 90, 8: 270}.get(turn, 0)
    turned = quadrants().rotate(undo, expand=True)
    data = behind_pixels(saved(turned, "PNG"), b"eXIf", exif(turn))
    assert sizes(data) == ((320, 240), (320, 240))
    assert difference(decoded(data), UPRIGHT) < 1


def test_exif_before_the_pixels_of_a_png_goes_before_that_behind_them() -> None:
    data = behind_pixels(saved(quadrants(), "PNG", exif=exif(1)), b"eXIf", exif(6))
    assert sizes(data) == ((320, 240), (320, 240))
    assert difference(decoded(data), UPRIGHT) < 1


def test_exif_behind_the_pixels_is_told_among_the_facts() -> None:
    told = Image.Exif()
    told[ExifTags.Base.Make] = "Maker"
    data = behind_pixels(saved(quadrants(), "PNG"), b"eXIf", told.tobytes()[6:])
    assert inspect(io.BytesIO(data), max_pixels=LIMIT).exif == {"Make": "Maker"}


@pytest.mark.parametrize("keep", [40, 100, -1, -20])
def test_a_png_cut_short_has_no_late_exif(keep: int) -> None:
    data = behind_pixels(saved(quadrants(), "PNG"), b"eXIf", exif(6))[:keep]
    file = io.BytesIO(data)
    file.seek(7)
    assert late_exif(file, 1000) == (exif(6) if keep == -1 else None)
    assert file.tell() == 7


def test_late_exif_of_a_wrong_checksum_is_passed_over() -> None:
    data = behind_pixels(saved(quadrants(), "PNG"), b"eXIf", exif(6))
    at = data.index(b"eXIf") + 4 + len(exif(6))
    broken = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    assert sizes(broken) == ((320, 240), (320, 240))
    assert (decoded(broken) == UPRIGHT).all()
    again = behind_pixels(broken, b"eXIf", exif(6))
    assert late_exif(io.BytesIO(again), 1000) == exif(6)


def test_late_exif_of_too_many_bytes_is_passed_over() -> None:
    data = behind_pixels(saved(quadrants(), "PNG"), b"eXIf", bytes(1001))
    assert late_exif(io.BytesIO(data), 1000) is None


def test_the_container_of_an_avif_goes_before_its_exif() -> None:
    told = Image.Exif()
    told[ExifTags.Base.Orientation] = 6  # which Pillow writes into the container
    told[ExifTags.Base.ResolutionUnit] = 3
    data = saved(quadrants().rotate(90, expand=True), "AVIF", exif=told, quality=95)
    number, other = (
        struct.pack(">HHI", each, 3, 1)
        for each in (ExifTags.Base.ResolutionUnit, ExifTags.Base.Orientation)
    )
    if number not in data:
        number, other = number[1::-1] + number[3:1:-1], other[1::-1] + other[3:1:-1]
    assert data.count(number) == 1
    lying = data.replace(number, other)
    assert sizes(lying) == ((320, 240), (320, 240))
    assert difference(decoded(lying), UPRIGHT) < _LOSSY
