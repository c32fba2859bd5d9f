"""Pictures as strangers send them: damaged, stitched together, lying, and too large; by a seed."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image
from pillow_heif import register_heif_opener

from deeplens_streams.errors import UndecodableImage, UnsupportedKind
from tests.support.odd_headers import odd_headers
from tests.support.photographs import photographs

register_heif_opener()

_SMALL = (200, 150)
#: The share of those about as large as they may be.
_LARGE = 0.005
#: A limit that such a picture is harmless at, whoever decodes it; tests lower the product's to it.
MAX_PIXELS = 2_000_000
#: Numbers that make sizes, counts and offsets overflow, or nothing at all.
_EDGES = (
    b"\xff" * 4,
    b"\0" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
    b"\0\0\0\1",
)


class Mutant(NamedTuple):
    """A picture and how it was made."""

    kind: str
    data: bytes


@cache
def originals() -> tuple[bytes, ...]:
    """Return small whole pictures of every format, with what formats may have beside pixels."""
    with Image.open(io.BytesIO(photographs()[0].data)) as opened:
        colours = opened.convert("RGB").resize(_SMALL)
    clear = colours.convert("RGBA")
    clear.putalpha(120)
    deep = Image.fromarray(np.arange(200 * 150, dtype=np.uint16).reshape(150, 200))
    frames = {"save_all": True, "append_images": [colours.rotate(90), colours.rotate(180)]}
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 8.0, 1.0)
    kinds: list[tuple[Image.Image, str, dict[str, object]]] = [
        (colours, "JPEG", {"exif": exif}),
        (colours, "JPEG", {"progressive": True, "icc_profile": b"profile" * 30}),
        (colours.convert("CMYK"), "JPEG", {}),
        (colours, "PNG", {"exif": exif}),
        (clear, "PNG", frames),
        (colours.quantize(16), "PNG", {"transparency": 3}),
        (deep, "PNG", {}),
        (colours, "WEBP", {"exif": exif}),
        (clear, "WEBP", {"lossless": True} | frames),
        (colours, "BMP", {}),
        (colours.quantize(16), "BMP", {}),
        (colours, "TIFF", {"exif": exif}),
        (colours, "TIFF", {"compression": "tiff_lzw"} | frames),
        (colours, "TIFF", {"compression": "jpeg"}),
        (colours.convert("1"), "TIFF", {"compression": "group4"}),
        (colours.convert("F"), "TIFF", {"compression": "tiff_adobe_deflate"}),
        (colours, "GIF", frames | {"comment": b"<script>"}),
        (colours, "AVIF", {"exif": exif, "speed": 10}),
        (colours, "HEIF", {"exif": exif.tobytes()}),
        (colours, "JPEG2000", {"quality_mode": "rates", "quality_layers": [40, 20]}),
        (clear, "JPEG2000", {"tile_size": (64, 64), "no_jp2": True}),
    ]
    found = []
    for image, name, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, name, **options)
        found.append(buffer.getvalue())
    return tuple(found)


@cache
def large_ones() -> tuple[bytes, ...]:
    """Return files that are as large as they may be where `MAX_PIXELS` is the limit, and a little
    larger: stand-ins for bombs.
    """
    kinds: list[tuple[str, str, int, dict[str, object]]] = [
        ("RGB", "PNG", 1, {"compress_level": 1}),
        ("RGBA", "PNG", 2, {"compress_level": 1}),
        ("1", "PNG", 1, {}),
        ("RGB", "TIFF", 1, {"compression": "tiff_lzw"}),
        ("L", "GIF", 1, {}),
        ("L", "GIF", 1, {"disposal": 2}),
        ("RGB", "WEBP", 4, {"lossless": True, "method": 0}),
        ("RGB", "AVIF", 3, {"speed": 10}),
        ("RGB", "HEIF", 2, {"quality": 1}),
        ("RGB", "JPEG", 2, {"progressive": True}),
    ]
    found = []
    for mode, name, weight, options in kinds:
        for share in (0.95, 1.05):
            side = int((MAX_PIXELS * share / weight) ** 0.5)
            buffer = io.BytesIO()
            Image.new(mode, (side, side)).save(buffer, name, **options)
            found.append(buffer.getvalue())
    return tuple(found)


def mutants(seed: int, count: int) -> Iterator[Mutant]:
    """Yield `count` pictures, the same ones for the same seed; each large one is there."""
    dice = random.Random(seed)
    ways = (_truncated, _flipped, _spliced, _overwritten, _repeated, _lying, _stuffed, _noise)
    certain = [Mutant("large", each) for each in large_ones()]
    certain += [Mutant("header", each) for each in odd_headers().values()]
    certain += [Mutant("whole", each) for each in originals()]
    for number in range(count):
        if number < len(certain):
            yield certain[number]
        elif dice.random() < _LARGE:
            yield Mutant("large", dice.choice(large_ones()))
        else:
            way: Callable[[random.Random], bytes] = dice.choice(ways)
            yield Mutant(way.__name__.strip("_"), way(dice))


def _original(dice: random.Random) -> bytes:
    return dice.choice(originals())


def _truncated(dice: random.Random) -> bytes:
    data = _original(dice)
    return data[: dice.randrange(1, len(data))]


def _flipped(dice: random.Random) -> bytes:
    data = bytearray(_original(dice))
    # Most of what decides is in front.
    reach = dice.choice((64, 1024, len(data)))
    for _ in range(dice.choice((1, 4, 32, 256))):
        data[dice.randrange(min(reach, len(data)))] ^= 1 << dice.randrange(8)
    return bytes(data)


def _spliced(dice: random.Random) -> bytes:
    head, tail = _original(dice), _original(dice)
    return (
        head[: dice.choice((4, 12, 32, 128, 600))] + tail[dice.choice((0, 4, 12, 32, 128, 600)) :]
    )


def _overwritten(dice: random.Random) -> bytes:
    data = bytearray(_original(dice))
    for _ in range(dice.choice((1, 2, 8))):
        at = dice.randrange(min(dice.choice((64, 512, len(data))), len(data) - 4))
        data[at : at + 4] = dice.choice(_EDGES)
    return bytes(data)


def _repeated(dice: random.Random) -> bytes:
    """Return a picture with a piece of it left out or there again, a thousand times at most."""
    data = _original(dice)
    start = dice.randrange(len(data) - 16)
    piece = data[start : start + dice.randrange(1, 512)]
    times = dice.choice((0, 2, 50, 1000))
    return data[:start] + piece * times + data[start + len(piece) :]


def _lying(dice: random.Random) -> bytes:
    """Return a PNG, a GIF or a BMP whose header tells sizes that it has no pixels for."""
    wide, high = (dice.choice((0, 1, 9_000, 65_535, 2**31 - 1, 2**32 - 1)) for _ in range(2))
    name = dice.choice(("PNG", "GIF", "BMP"))
    if name == "GIF":
        return b"GIF89a" + struct.pack("<HH", wide & 0xFFFF, high & 0xFFFF) + dice.randbytes(64)
    if name == "BMP":
        sizes = struct.pack("<IIIHH", 40, wide, high, 1, dice.choice((1, 4, 8, 24, 32)))
        return b"BM" + bytes(8) + struct.pack("<I", 54) + sizes + bytes(24) + dice.randbytes(64)
    depth, colour = dice.choice(((8, 2), (8, 6), (16, 6), (1, 0), (8, 3)))
    header = struct.pack(">IIBBBBB", wide, high, depth, colour, 0, 0, dice.randrange(2))
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(5000)))
    return b"\x89PNG\r\n\x1a\n" + chunks + _chunk(b"IEND", b"")


def _stuffed(dice: random.Random) -> bytes:
    """Return a PNG with an odd chunk beside its pixels, or one of more text than may be."""
    body = dice.choice((_long_text(), dice.randbytes(200), b""))
    kind = dice.choice((b"zTXt", b"iCCP", b"iTXt", b"eXIf", b"tRNS", b"PLTE", b"acTL", b"fcTL"))
    data = dice.choice([each for each in originals() if each.startswith(b"\x89PNG")])
    return data[:33] + _chunk(kind, body) + data[33:]


@cache
def _long_text() -> bytes:
    return b"name\0\0" + zlib.compress(bytes(1_100_000))


def _noise(dice: random.Random) -> bytes:
    head = dice.choice((b"", _original(dice)[: dice.choice((4, 16, 40))]))
    return head + dice.randbytes(dice.choice((1, 64, 5_000)))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


#: How one that is refused at its upload is answered.
REFUSED = {(400, "UNDECODABLE_IMAGE"), (413, "TOO_MANY_PIXELS"), (413, "TOO_MANY_FRAMES")} | {
    (415, "UNSUPPORTED_FORMAT"),
    (415, "UNSUPPORTED_KIND"),
}


#: How a picture that was accepted may end. That no decoder knows its kind may show at its pixels.
RESOLVED = {"completed", UndecodableImage.code, UnsupportedKind.code}
