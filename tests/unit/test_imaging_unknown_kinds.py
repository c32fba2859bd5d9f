"""Pictures of kinds that no decoder here knows are not called damaged, nor damage a kind."""

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from deeplens_streams.errors import TooManyPixels, UndecodableImage, UnsupportedKind
from deeplens_streams.imaging.header import inspect
from tests.support.pictures import LIMIT, decoded, quadrants, saved

_NOISE = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)


def changed(name: str, begin: bytes, offset: int, put: bytes) -> bytes:
    """Return a picture with bytes exchanged behind the first place that begins so."""
    data = saved(Image.new("RGB", (16, 16)), name)
    at = data.index(begin) + offset
    return data[:at] + put + data[at + len(put) :]


def bitmap(*masks: int, bits: int = 32, rows: int = 8) -> bytes:
    """Return one of 8 by 8 pixels with fields as masks tell."""
    head = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, bits, 3, 0, 0, 0, 0, 0)
    pixels = bytes(rows * 8 * bits // 8)
    told = struct.pack("<IHHI", 66 + len(pixels), 0, 0, 66)
    return b"BM" + told + head + struct.pack("<III", *masks) + pixels


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


def with_compression(number: int) -> bytes:
    data = saved(Image.new("RGB", (16, 16)), "TIFF")
    return data.replace(b"\3\1\3\0\1\0\0\0\1\0", b"\3\1\3\0\1\0\0\0" + struct.pack("<H", number), 1)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (changed("JPEG", b"\xff\xc0", 4, b"\x0c"), "JPEG .*12-bit"),
        (changed("JPEG", b"\xff\xc0", 1, b"\xc3"), "JPEG .*lossless"),
        (changed("JPEG", b"\xff\xc0", 1, b"\xc5"), "JPEG .*hierarchical"),
        (changed("JPEG", b"\xff\xc0\0\x11", 3, b"\x0e\x08\0\x10\0\x10\x02"), "JPEG .*2 colours"),
        (changed("BMP", b"\x28\0\0\0", 14, b"\x80\0"), "BMP .*depth of 128"),
        (changed("BMP", b"\x28\0\0\0", 16, b"\5\0"), "BMP .*compression 5"),
        (bitmap(0xFF00, 0xFF0000, 0xFF000000), "BMP .*bit fields"),
        (bitmap(0xF, 0xF0, 0xF00, bits=16), "BMP .*bit fields"),
        (with_compression(50001), "TIFF .*compression 50001"),
        (tiff(_NOISE.astype(np.float32), photometric="rgb"), "TIFF .*bits"),
    ],
    ids=[
        *("JPEG of 12 bits", "JPEG without loss", "JPEG in a hierarchy", "JPEG of 2 colours"),
        *(
            "BMP of 128 bits",
            "BMP with a PNG inside",
            "BMP of odd fields",
            "BMP of 4 bits a colour",
        ),
        *("TIFF of WebPs", "TIFF of floating point colours"),
    ],
)
def test_a_whole_picture_of_an_unknown_kind_is_named(data: bytes, told: str) -> None:
    with pytest.raises(UnsupportedKind, match=f"This kind of {told}"):
        decoded(data)


def is_damaged(data: bytes) -> bool:
    """Tell whether it is called so; a picture that is shown all the same is not."""
    try:
        inspect(io.BytesIO(data), max_pixels=LIMIT)
        decoded(data)
    except UnsupportedKind:
        raise
    except UndecodableImage:
        return True
    except TooManyPixels:  # what is wrong is its size
        return False
    return False


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(_NOISE), "TIFF"),
        saved(Image.fromarray(_NOISE), "TIFF", compression="tiff_lzw"),
        saved(Image.fromarray(_NOISE), "TIFF", compression="jpeg"),
        tiff(_NOISE, photometric="rgb"),
        tiff(_NOISE, photometric="rgb", byteorder=">"),
        tiff(_NOISE, photometric="rgb", planarconfig="contig", bigtiff=True),
        tiff(_NOISE.astype(np.uint16), photometric="rgb"),
        tiff(_NOISE[..., 0].astype(np.float32), photometric="minisblack"),
    ],
    ids=[
        "plain",
        "LZW",
        "JPEG",
        "tifffile's",
        "big-endian",
        "BigTIFF",
        "16 bits",
        "floating point",
    ],
)
def test_a_tiff_that_is_cut_is_damaged(data: bytes) -> None:
    assert not is_damaged(data)
    assert is_damaged(data[:-100])
    for length in (9, 40, 100, 150, 200, 250):
        assert is_damaged(data[:length])


def test_a_directory_at_the_end_may_be_cut_anywhere() -> None:
    data = saved(Image.fromarray(_NOISE), "TIFF", compression="tiff_lzw")
    directory = struct.unpack_from("<I", data, 4)[0]
    moved = data + data[directory : directory + 2 + 12 * 30]
    moved = moved[:4] + struct.pack("<I", len(data)) + moved[8:]
    assert all(is_damaged(moved[: len(data) + cut]) for cut in range(0, 120, 7))


@pytest.mark.parametrize("name", ["HEIF", "AVIF"])
def test_a_byte_that_is_wrong_makes_no_kind(name: str) -> None:
    data = saved(quadrants((64, 48)), name)
    damaged = 0
    for at in range(16, len(data), 5):
        flipped = bytearray(data)
        flipped[at] ^= 0x55
        damaged += is_damaged(bytes(flipped))
    assert damaged > 10


@pytest.mark.parametrize("name", ["JPEG", "BMP", "GIF", "PNG", "WEBP"])
def test_other_formats_that_are_cut_are_damaged(name: str) -> None:
    data = saved(Image.fromarray(_NOISE), name)
    assert all(is_damaged(data[: len(data) * part // 10]) for part in range(2, 7))


def test_a_bitmap_of_known_fields_that_is_cut_is_damaged() -> None:
    fields = 0xFF0000, 0xFF00, 0xFF
    assert not is_damaged(bitmap(*fields))
    assert is_damaged(bitmap(*fields, rows=4))
