"""How the primary picture of an AVIF or HEIC is coded: by that its decoder is chosen.

Brands say what a reader should know, and some files have one of the two with the other's pictures.
"""

import struct
from typing import Final

from deeplens_streams.errors import UndecodableImage
from deeplens_streams.imaging.isobmff import boxes, described_items, primary_item

AV1: Final = b"av01"
HEVC: Final = b"hvc1"
#: Codings that the standard has and no decoder here knows.
UNKNOWN_CODINGS: Final[dict[bytes | None, str]] = {
    b"avc1": "H.264",
    b"evc1": "EVC",
    b"j2k1": "JPEG 2000",
    b"jpeg": "JPEG",
    b"unci": "not compressed",
    b"vvc1": "VVC",
}
#: Pictures that are made of others, of which the first one tells.
_MADE: Final = {b"grid", b"iden", b"iovl", b"tmap"}
#: By version of an item's description: its number, its protection, its kind.
_INFOS: Final = {2: ">HH4s", 3: ">IH4s"}
#: How often a picture may be made of one that is made of others.
_DEEPEST: Final = 8
#: Where a file has its brands: the major one, and the others behind a version.
_MAJOR, _COMPATIBLE = 8, 16


def primary_coding(data: memoryview) -> bytes | None:
    """Return the coding, as the container names it; None if there is nothing that tells."""
    try:
        meta = described_items(data)
        if not {b"pitm", b"iinf"} <= meta.keys():
            return None
        item: int | None = primary_item(meta)
        kinds, made_of = _kinds(meta[b"iinf"]), _made_of(meta.get(b"iref", data[:0]))
    except (struct.error, UndecodableImage):
        return None
    for _ in range(_DEEPEST):
        if kinds.get(item) not in _MADE:
            return kinds.get(item)
        item = made_of.get(item)
    return None


def with_brand(data: memoryview, *taken: bytes) -> bytes | None:
    """Return the file with the first of the brands that its decoder takes; None if it has one.

    Others give way to it: bytes that were put in would move those that the items are in.
    """
    length, _ = struct.unpack_from(">I4s", data)
    places = range(_COMPATIBLE, min(length, len(data)) - 3, 4)
    if any(bytes(data[at : at + 4]) in taken for at in places):
        return None
    changed = bytearray(data)
    for at in (_MAJOR, *places[-1:]):
        changed[at : at + 4] = taken[0]
    return bytes(changed)


def _kinds(infos: memoryview) -> dict[int | None, bytes]:
    """Return the kind of each item."""
    found: dict[int | None, bytes] = {}
    for kind, body in boxes(infos[8 if any(infos[:1]) else 6 :]):
        if kind == b"infe" and body[0] in _INFOS:
            item, _, coding = struct.unpack_from(_INFOS[body[0]], body, 4)
            found.setdefault(item, coding)
    return found


def _made_of(references: memoryview) -> dict[int | None, int]:
    """Return of each picture that is made of others the first of them."""
    found: dict[int | None, int] = {}
    numbers = ">IHI" if any(references[:1]) else ">HHH"
    for kind, body in boxes(references[4:]):
        if kind == b"dimg":
            item, count, first = struct.unpack_from(numbers, body)
            if count:
                found.setdefault(item, first)
    return found
