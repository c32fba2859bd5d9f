"""A PNG whose pixels end early is damaged, also where its stream ends in good order.

Pillow's decoder says the same of a stream that ends behind some row as of one that ends behind the
last, and leaves the rows that are missing black. So the last pixel is marked before it decodes; if
the mark is left, the stream is unpacked once more, and what is in it counted.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

from PIL.PngImagePlugin import PngImageFile

#: Of each mode that Pillow has PNGs in, a colour that few pixels have.
_MARKS: Final[dict[str, Any]] = {
    "1": 77,
    "L": 77,
    "P": 251,
    "I;16": 0x4D03,
    "LA": (77, 3),
    "RGB": (77, 3, 201),
    "RGBA": (77, 3, 201, 5),
}
#: Bytes in front of a chunk's content, and behind it.
_HEAD: Final = 8
_CRC: Final = 4
#: Where the header begins, and its samples for each kind of colour.
_HEADER: Final = 16
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: Column and row where each pass of an interlaced picture begins, and its steps.
_INTERLACED: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_PLAIN: Final = ((0, 0, 1, 1),)
#: Bytes that are unpacked at once.
_PIECE: Final = 65_536


class WholePng(PngImageFile):
    """Pillow's PNG, which fails with `OSError` where rows are missing at the end of its stream."""

    def load_prepare(self) -> None:
        super().load_prepare()
        self._marked: tuple[int, int] | None = None
        if len(self.tile) == 1 and self.tile[0].extents == (0, 0, *self.size):
            self._pixels_at = self.tile[0].offset
            self._marked = _last_pixel(*self.size, interlaced="interlace" in self.info)
            self.im.putpixel(self._marked, _MARKS[self.mode])

    def load_end(self) -> None:
        if self._marked and self.im.getpixel(self._marked) == _MARKS[self.mode]:
            self._count_rows()
        super().load_end()

    def _count_rows(self) -> None:
        assert self.fp is not None
        back = self.fp.tell()
        self.fp.seek(_HEADER)
        width, height, depth, colour, *_, passes = struct.unpack(">IIBBBBB", self.fp.read(13))
        missing = _bytes_of(width, height, depth * _SAMPLES[colour], interlaced=bool(passes))
        stream = zlib.decompressobj()
        for packed in self._pixels():
            left = packed
            while left and missing > 0 and not stream.eof:
                missing -= len(stream.decompress(left, _PIECE))
                left = stream.unconsumed_tail
        self.fp.seek(back)
        if missing > 0 and missing > len(stream.flush()):
            raise OSError("rows are missing")

    def _pixels(self) -> Iterator[bytes]:
        """Yield the contents of the chunks of pixels, which lie one behind the other."""
        assert self.fp is not None
        self.fp.seek(self._pixels_at - _HEAD)
        while (head := self.fp.read(_HEAD))[4:] == b"IDAT":
            yield self.fp.read(int.from_bytes(head[:4], "big"))
            self.fp.seek(_CRC, 1)


def _last_pixel(width: int, height: int, *, interlaced: bool) -> tuple[int, int]:
    """Return column and row of the pixel that is the last one in the stream."""
    *_, (columns, rows) = _passes(width, height, interlaced=interlaced)
    return columns[-1], rows[-1]


def _bytes_of(width: int, height: int, bits: int, *, interlaced: bool) -> int:
    """Return how many bytes all rows have, with the one in front of each that tells its filter."""
    return sum(
        len(rows) * (1 + (len(columns) * bits + 7) // 8)
        for columns, rows in _passes(width, height, interlaced=interlaced)
    )


def _passes(width: int, height: int, *, interlaced: bool) -> Iterator[tuple[range, range]]:
    """Yield the columns and rows of each pass that has any."""
    for left, top, across, down in _INTERLACED if interlaced else _PLAIN:
        columns, rows = range(left, width, across), range(top, height, down)
        if columns and rows:
            yield columns, rows
