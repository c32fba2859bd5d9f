"""Pictures of few pixels whose headers hold more than a picture's do: of each guard what it stops.

They are stand-ins, of kilobytes, that do no decoder any harm. A test that wants a guard to stop one
lowers the guard's limit.
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import cache

from PIL import Image
from pillow_heif import register_heif_opener

register_heif_opener()

#: Types of TIFF's tags.
SHORT, LONG, RATIONAL = 3, 4, 5
_WIDTH, _HEIGHT, _STRIP_OFFSETS, _STRIP_BYTES, _ROWS = 256, 257, 273, 279, 278
_BITS, _RESOLUTION, _UNKNOWN = 258, 282, 40_000

Tag = tuple[int, int, int, int]


#: Bytes of one, about; enough for what a guard counts to be told from what a picture has.
_BYTES = 50_000


@cache
def odd_headers() -> dict[str, bytes]:
    """Return them by what they are."""
    size = _BYTES
    return {
        "GIF, the area behind its frame": gif(300, 300),
        "GIF, a comment of tiny pieces": _behind(gif(9, 9, disposal=0), 19, _comment(size)),
        "JPEG, empty segments": _behind(small("JPEG"), 2, b"\xff\xe5\0\2" * (size // 4)),
        "JPEG, empty comments": _behind(small("JPEG"), 2, b"\xff\xfe\0\4ab" * (size // 6)),
        "JPEG, frame headers": _frames(size),
        "JPEG, EXIF in pieces": exif_in_pieces(exif(size // 2), 24),
        "JPEG, a resolution of many numbers": exif_in_pieces(exif(size, _RESOLUTION), 65_000),
        "PNG, one tag of EXIF": png(b"eXIf", exif(size)),
        "PNG, private chunks": _behind(small("PNG"), 33, chunk(b"prVt", b"ab") * (size // 14)),
        "PNG, packed texts": _behind(small("PNG"), 33, b"".join(map(_text, range(60)))),
        "PNG, EXIF as lines of text": png(b"tEXt", b"Raw profile type exif\0" + b"\n" * size),
        "WebP, one tag of EXIF": small("WEBP", exif=b"Exif\0\0" + exif(size)),
        "TIFF, one tag": tiff(size, [(_UNKNOWN, RATIONAL, size // 8 - 1000, 8)]),
        "TIFF, a tag that its size depends on": tiff(
            size, [(_BITS, RATIONAL, size // 8 - 1000, 8)]
        ),
        "TIFF, strips": _strips(size),
        "TIFF, tags": tiff(size, _many_tags(size)),
        "HEIC, items over one another": heic(size, items=100),
        "HEIC, pictures that share a profile": heic(size, pictures=100),
        "AVIF, items over one another": heic(size, "AVIF", items=100),
    }


def small(name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, name, **options)
    return buffer.getvalue()


def _behind(data: bytes, at: int, put: bytes) -> bytes:
    return data[:at] + put + data[at:]


# GIF and JPEG --------------------------------------------------------------------------------


def gif(width: int, height: int, *, disposal: int = 2) -> bytes:
    """Return a GIF of one frame; with 2 its area is to be filled before the next one is shown."""
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    control = b"\x21\xf9\4" + bytes([disposal << 2]) + bytes(4)
    frame = struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + screen + control + b"," + frame + b"\2\2\x44\1\0;"


def _comment(size: int) -> bytes:
    return b"\x21\xfe" + b"\2ab" * (size // 3) + b"\0"


def _frames(size: int) -> bytes:
    data = small("JPEG")
    head = b"\xff\xc0" + struct.pack(">H", 1_000) + b"\x08\0\x10\0\x10\3"
    one = (head + b"\1\x11\0" * 333)[: 1_000 + 2]
    return _behind(data, data.index(b"\xff\xc0"), one * (size // len(one)))


def exif_in_pieces(block: bytes, length: int) -> bytes:
    """Return a JPEG with EXIF in segments of `length` bytes."""
    segments = bytearray()
    for at in range(0, len(block), length):
        piece = b"Exif\0\0" + block[at : at + length]
        segments += b"\xff\xe1" + struct.pack(">H", len(piece) + 2) + piece
    return _behind(small("JPEG"), 2, bytes(segments))


# TIFF and EXIF -------------------------------------------------------------------------------


def directory(tags: Iterable[Tag]) -> bytes:
    """Return a directory; a tag is its number, its type, how many values it has, and where."""
    entries = [struct.pack("<HHII", *each) for each in sorted(tags)]
    return struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


def exif(size: int, tag: int = _UNKNOWN) -> bytes:
    """Return EXIF with one tag of fractions."""
    numbers = size // 8 - 100
    head = b"II*\0" + struct.pack("<I", 8) + directory([(tag, RATIONAL, numbers, 26)])
    return head + struct.pack("<II", 1, 3) * numbers


def tiff(size: int, tags: list[Tag]) -> bytes:
    """Return a grey TIFF with these tags before the usual ones."""
    usual: list[Tag] = [
        (_WIDTH, SHORT, 1, 64),
        (_HEIGHT, LONG, 1, 48),
        (_BITS, SHORT, 1, 8),
        (259, SHORT, 1, 1),
        (262, SHORT, 1, 1),
        (277, SHORT, 1, 1),
        (_STRIP_OFFSETS, LONG, 1, 8),
        (_ROWS, LONG, 1, 48),
        (_STRIP_BYTES, LONG, 1, 64 * 48),
    ]
    given = {each[0] for each in tags}
    behind = directory(tags + [each for each in usual if each[0] not in given])
    filling = b"\1" * max(64 * 48, size - 8 - len(behind))
    return b"II*\0" + struct.pack("<I", 8 + len(filling)) + filling + behind


def _strips(size: int) -> bytes:
    rows = size // 4 - 100
    sides: list[Tag] = [(_WIDTH, SHORT, 1, 1), (_HEIGHT, LONG, 1, rows), (_ROWS, LONG, 1, 1)]
    return tiff(size, [*sides, (_STRIP_OFFSETS, LONG, rows, 8)])


def _many_tags(size: int) -> list[Tag]:
    tags = range(_UNKNOWN, _UNKNOWN + size // 2_000)
    numbers = 200
    return [(tag, RATIONAL, numbers, 8 + 8 * numbers * (tag - _UNKNOWN)) for tag in tags]


# PNG, HEIC and AVIF --------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(kind: bytes, body: bytes) -> bytes:
    return _behind(small("PNG"), 33, chunk(kind, body))


def _text(number: int) -> bytes:
    return chunk(b"zTXt", b"key %d\0\0" % number + zlib.compress(bytes(10_000)))


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        length = struct.unpack_from(">I", data, at)[0]
        yield data[at + 4 : at + 8], data[at + 8 : at + length]
        at += length


def heic(size: int, name: str = "HEIF", *, items: int = 1, pictures: int = 1) -> bytes:
    """Return a file with this many items of EXIF at one place, and pictures of one profile."""
    made = dict(boxes(small(name)))
    meta, pixels = dict(boxes(made[b"meta"][4:])), made[b"mdat"]
    told = b"\0\0\0\0" + (b"" if pictures > 1 else exif(size))
    ours, all_of_it = range(1, 1 + pictures), range(1, 1 + pictures + items)
    kind = b"hvc1" if name == "HEIF" else b"av01"
    infos = [
        box(
            b"infe",
            struct.pack(">IHH", 2 << 24, each, 0) + (kind if each in ours else b"Exif") + b"\0",
        )
        for each in all_of_it
    ]
    meta[b"iinf"] = struct.pack(">IH", 0, len(infos)) + b"".join(infos)
    says = [box(b"cdsc", struct.pack(">HHH", each, 1, 1)) for each in all_of_it if each not in ours]
    meta[b"iref"] = bytes(4) + b"".join(says)
    if pictures > 1:
        meta[b"iprp"] = _shared(dict(boxes(meta[b"iprp"])), pictures, size // 2)

    def whole(begin: int) -> bytes:
        places = [
            struct.pack(">HHHII", each, 0, 1, begin, len(pixels))
            if each in ours
            else struct.pack(">HHHII", each, 0, 1, begin + len(pixels), len(told))
            for each in all_of_it
        ]
        meta[b"iloc"] = struct.pack(">IHH", 0, 0x4400, len(places)) + b"".join(places)
        described = bytes(4) + b"".join(box(*each) for each in meta.items())
        return box(b"ftyp", made[b"ftyp"]) + box(b"meta", described)

    return whole(len(whole(0)) + 8) + box(b"mdat", pixels + told)


def _shared(properties: dict[bytes, bytes], pictures: int, size: int) -> bytes:
    """Return the properties of the first picture for all, and a profile of `size` bytes."""
    count = len(list(boxes(properties[b"ipco"])))
    profile = box(b"colr", b"prof" + b"p" * size)
    of_one = properties[b"ipma"]
    links = bytes([of_one[10] + 1]) + of_one[11 : 11 + of_one[10]] + bytes([count + 1])
    of_all = [struct.pack(">H", each) + links for each in range(1, 1 + pictures)]
    linked = bytes(4) + struct.pack(">I", pictures) + b"".join(of_all)
    return box(b"ipco", properties[b"ipco"] + profile) + box(b"ipma", linked)
