"""What the codestream of a JPEG 2000 picture says of itself, in front of its tiles and in them.

Its memory depends on more than its size: a decoder keeps a record for each block of coefficients,
and blocks may be as small as sixteen of them.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from deeplens_streams.errors import UndecodableImage

_START, _SIZE, _CODING, _CODING_OF_ONE = 0xFF4F, 0xFF51, 0xFF52, 0xFF53
_TILE, _DATA, _END = 0xFF90, 0xFF93, 0xFFD9
#: Bytes of a tile part's first segment, its marker among them.
_TILE_HEADER: Final = 12
#: Segments of all headers, at the most.
_SEGMENTS: Final = 65_536
#: More components have numbers of two bytes.
_NARROW: Final = 257
_MOST_LEVELS: Final = 32
#: A block has at least 4 and at most 1024 coefficients a side.
_BLOCK_SIDE: Final = range(2, 11)
#: Exponent of a precinct's side where none is told.
_UNDIVIDED: Final = 15
#: Bytes that OpenJPEG keeps of a block, as measured, and of a precinct, which may have but one.
_BLOCK_BYTES, _PRECINCT_BYTES = 450, 1_000


@dataclass(slots=True)
class Codestream:
    """A codestream's headers.

    Attributes
    ----------
    width, height : pixels.
    bits : of each component's samples.
    tiles : how many.
    levels : how often its sides can be halved without decoding all of it.
    records : bytes that a decoder keeps for each coefficient, of its block and of the group of
        blocks (the precinct) that it is in.
    """

    width: int
    height: int
    bits: tuple[int, ...]
    tiles: int
    levels: int = _MOST_LEVELS
    records: float = 0.0
    has_coding: bool = field(default=False, repr=False)


def read_codestream(data: memoryview) -> Codestream:
    """Read all headers of a codestream, those of its tiles among them.

    Raises
    ------
    UndecodableImage
        They are damaged.
    """
    try:
        segments = _segments(data)
        kind, body = next(segments)
        if kind != _SIZE:
            raise UndecodableImage
        found = _size(body)
        for kind, body in segments:
            if kind == _CODING:
                _take(found, body[5:], sized=bool(body[0] & 1))
            elif kind == _CODING_OF_ONE:
                at = 1 if len(found.bits) < _NARROW else 2
                _take(found, body[at + 1 :], sized=bool(body[at] & 1))
    except (struct.error, IndexError, StopIteration) as error:
        raise UndecodableImage from error
    if not found.has_coding:
        raise UndecodableImage
    return found


def _segments(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield kind and content of each segment of the main header, then those of all tiles."""
    if struct.unpack_from(">H", data)[0] != _START:
        raise UndecodableImage
    at, following = 2, 0
    for _ in range(_SEGMENTS):
        if at + 2 > len(data):
            return
        kind = struct.unpack_from(">H", data, at)[0]
        if kind == _DATA:  # the header of a tile part ends, and the next one is behind its data
            at = following
            continue
        if kind == _END:
            return
        length = struct.unpack_from(">H", data, at + 2)[0]
        if length < 2:  # noqa: PLR2004 -- its own bytes
            raise UndecodableImage
        if kind == _TILE:
            whole = struct.unpack_from(">I", data, at + 6)[0]
            following = at + max(whole, _TILE_HEADER) if whole else len(data)
        else:
            yield kind, data[at + 4 : at + 2 + length]
        at += 2 + length
    raise UndecodableImage


def _size(body: memoryview) -> Codestream:
    (_, *edges, components) = struct.unpack_from(">H8IH", body)
    right, bottom, left, top, wide, high, tiles_left, tiles_top = edges
    bits = tuple((body[36 + 3 * each] & 0x7F) + 1 for each in range(components))
    if not (left < right and top < bottom and wide and high and bits):
        raise UndecodableImage
    if not (tiles_left <= left and tiles_top <= top):
        raise UndecodableImage
    across, down = -(-(right - tiles_left) // wide), -(-(bottom - tiles_top) // high)
    return Codestream(right - left, bottom - top, bits, across * down)


def _take(found: Codestream, coding: memoryview, *, sized: bool) -> None:
    """Note a way of coding: levels, sides of blocks, and sides of precincts where they are told."""
    levels, wide, high = coding[0], coding[1] + 2, coding[2] + 2
    if levels > _MOST_LEVELS or wide not in _BLOCK_SIDE or high not in _BLOCK_SIDE:
        raise UndecodableImage
    found.has_coding = True
    found.levels = min(found.levels, levels)
    records, left = 0.0, 1.0
    for number in range(levels, -1, -1):  # from the one that has most of the coefficients
        sides = coding[5 + number] if sized else _UNDIVIDED * 17
        # Above the lowest level a precinct has its coefficients in three bands.
        across, down = (max(0, side - bool(number)) for side in (sides & 15, sides >> 4))
        block = 1 << min(wide, across) + min(high, down)
        share = left * 3 / 4 if number else left
        records += share * (_BLOCK_BYTES / block + _PRECINCT_BYTES / (1 << across + down))
        left -= share
    found.records = max(found.records, records)
