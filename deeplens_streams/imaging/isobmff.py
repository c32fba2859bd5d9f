"""What AVIF and HEIC say of their items, added up before a decoder believes it.

A decoder copies the bytes of each item, and what pictures share for each of them. Items may lie
over one another, so a file of megabytes can tell of gigabytes.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Final

from deeplens_streams.errors import UndecodableImage

#: Boxes in a box, items in a file, and pieces of an item, at the most.
_MOST: Final = 4_096
#: Items times the bytes of the box that describes them, at the most: a grid of a thousand tiles
#: has less.
_DESCRIBED: Final = 64 * 1024 * 1024
#: How often the items may tell the file's bytes: once, but that of a picture in layers each layer
#: may be an item with all below it, and AV1 has four.
_TOLD: Final = 4
#: Bytes that the items may tell in any case: a flat grid has the same tile a thousand times.
_FLOOR: Final = 16 * 1024 * 1024
_BOX: Final = 8


def check_items(data: memoryview) -> None:
    """Raise `UndecodableImage` if the items tell of more than the file can have."""
    try:
        for kind, body in boxes(data):
            if kind == b"meta":
                _check(list(boxes(body[4:])), len(body), len(data))
    except struct.error as error:
        raise UndecodableImage from error


def boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield kind and content of one box after the other; what is no box ends them."""
    at = 0
    for _ in range(_MOST):
        if len(data) - at < _BOX:
            return
        begin, (length, kind) = _BOX, struct.unpack_from(">I4s", data, at)
        if length == 0:
            length = len(data) - at
        elif length == 1:
            begin, length = 2 * _BOX, struct.unpack_from(">Q", data, at + _BOX)[0]
        if length < begin:
            return
        yield kind, data[at + begin : at + length]
        at += length
    raise UndecodableImage


def described_items(data: memoryview) -> dict[bytes, memoryview]:
    """Return the boxes of a file that describe its items, by kind.

    Raises
    ------
    UndecodableImage
        There are too many.
    """
    return dict(boxes(dict(boxes(data)).get(b"meta", data[:0])[4:]))


def primary_item(described: dict[bytes, memoryview]) -> int:
    """Return the number of the item that is shown; `described` has its box, ``pitm``."""
    told = described[b"pitm"]
    number: int = struct.unpack_from(">I" if any(told[:1]) else ">H", told, 4)[0]
    return number


def primary_properties(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield kind and content of what belongs to the primary item, in the order of its links.

    Raises
    ------
    UndecodableImage, struct.error
        What is told of the properties is damaged.
    """
    meta = described_items(data)
    if not {b"pitm", b"iprp"} <= meta.keys():
        return
    primary = primary_item(meta)
    container: list[tuple[bytes, memoryview]] = []
    linked: list[int] = []
    for kind, body in boxes(meta[b"iprp"]):
        if kind == b"ipco":
            container = list(boxes(body))
        elif kind == b"ipma":
            linked += _linked(body, primary)
    for index in linked:
        if 0 < index <= len(container):
            yield container[index - 1]


def _linked(associations: memoryview, primary: int) -> Iterator[int]:
    """Yield the numbers of the properties that belong to an item."""
    version, _, many, count = struct.unpack_from(">BHBI", associations)
    at = 8
    for _ in range(min(count, len(associations))):
        item = struct.unpack_from(">I" if version else ">H", associations, at)[0]
        at += 4 if version else 2
        links = struct.unpack_from(">B", associations, at)[0]
        at += 1
        if item == primary:
            told = struct.unpack_from(f">{links}{'H' if many & 1 else 'B'}", associations, at)
            yield from (each & (0x7FFF if many & 1 else 0x7F) for each in told)
        at += links * (2 if many & 1 else 1)


def _check(boxes: list[tuple[bytes, memoryview]], described: int, size: int) -> None:
    items = sum(_count(body) for kind, body in boxes if kind == b"iinf")
    copies: Counter[int] = Counter()
    for kind, body in boxes:
        if kind == b"iref":
            copies.update(_described(body))
    left = max(_FLOOR, _TOLD * size)
    for kind, body in boxes:
        if kind == b"iloc":
            for item, length in _pieces(body, items):
                left -= max(1, copies[item]) * (length or size)
                if left < 0:
                    raise UndecodableImage
    if items * described > _DESCRIBED:
        raise UndecodableImage


def _count(infos: memoryview) -> int:
    """Return how many items are described; a count before them may say something else."""
    return sum(1 for _ in boxes(infos[8 if any(infos[:1]) else 6 :]))


def _described(references: memoryview) -> dict[int, int]:
    """Return of each item that says something of pictures, of how many."""
    numbers = ">IH" if any(references[:1]) else ">HH"
    found: Counter[int] = Counter()
    for kind, body in boxes(references[4:]):
        if kind == b"cdsc":
            item, pictures = struct.unpack_from(numbers, body)
            found[item] += pictures
    return found


def _pieces(locations: memoryview, items: int) -> Iterator[tuple[int, int]]:
    """Yield the item and the length of each piece; no length is that of the whole file."""
    at = 4

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(locations):
            raise UndecodableImage
        return int.from_bytes(locations[at - size : at], "big")

    version, sizes = locations[0] if locations else 0, number(2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 2 if version < 2 else 4  # noqa: PLR2004 -- the version with wide numbers
    count = number(wide)
    if count > items:
        raise UndecodableImage
    for _ in range(count):
        item = number(wide)
        number((2 if version else 0) + 2 + base)
        pieces = number(2)
        if pieces > _MOST:
            raise UndecodableImage
        for _ in range(pieces):
            number((index if version else 0) + offset)
            yield item, number(length)
