"""The part of an AVIF that is shown: its primary item's clean aperture, `clap`."""

import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

from PIL.AvifImagePlugin import AvifImageFile

from deeplens_streams.errors import UndecodableImage
from deeplens_streams.imaging.isobmff import boxes

Box = tuple[int, int, int, int]

_CLAP: Final = ">IIIIiIiI"
#: The brand of sequences, whose pictures are described in tracks and not in items.
_SEQUENCE: Final = b"avis"


class CroppedAvif(AvifImageFile):
    """An AVIF that is cropped as its container says; Pillow's own shows what was cropped away.

    Attributes
    ----------
    decoded_size : what is decoded, in pixels, of which `size` is shown.
    """

    decoded_size: tuple[int, int]
    _aperture: Box | None = None

    def _open(self) -> None:
        super()._open()
        self.decoded_size = self.size

    def crop_to(self, aperture: Box | None) -> None:
        """Show this part, in pixels before any turn."""
        if aperture is not None:
            self._aperture = aperture
            self._size = aperture[2] - aperture[0], aperture[3] - aperture[1]

    def load(self) -> Any:
        if self._aperture is None or not self.tile:
            return super().load()
        self._size = self.decoded_size
        super().load()
        self.im = self.im.crop(self._aperture)
        self._size = self.im.size
        return super().load()


def clean_aperture(data: memoryview, size: tuple[int, int]) -> Box | None:
    """Return left, top, right, bottom of what is shown of `size`; None for all of it.

    An aperture that is damaged, or reaches beyond the picture, is none.
    """
    try:
        told = _aperture(data)
        return None if told is None else _box(told, size)
    except (struct.error, UndecodableImage, ZeroDivisionError):
        return None


def _aperture(data: memoryview) -> memoryview | None:
    top = dict(boxes(data))
    if b"meta" not in top or bytes(top.get(b"ftyp", b"")[:4]) == _SEQUENCE:
        return None
    meta = dict(boxes(top[b"meta"][4:]))
    if not {b"pitm", b"iprp"} <= meta.keys():
        return None
    wide = meta[b"pitm"][0]
    primary = struct.unpack_from(">I" if wide else ">H", meta[b"pitm"], 4)[0]
    container: list[tuple[bytes, memoryview]] = []
    linked: list[int] = []
    for kind, body in boxes(meta[b"iprp"]):
        if kind == b"ipco":
            container = list(boxes(body))
        elif kind == b"ipma":
            linked += _linked(body, primary)
    for index in linked:
        if 0 < index <= len(container) and container[index - 1][0] == b"clap":
            return container[index - 1][1]
    return None


def _linked(associations: memoryview, primary: int) -> Iterator[int]:
    """Yield the numbers of the properties that belong to an item."""
    version, many = associations[0], associations[3] & 1
    count, at = struct.unpack_from(">I", associations, 4)[0], 8
    for _ in range(min(count, len(associations))):
        item = struct.unpack_from(">I" if version else ">H", associations, at)[0]
        at += 4 if version else 2
        links = struct.unpack_from(">B", associations, at)[0]
        at += 1
        if item == primary:
            told = struct.unpack_from(f">{links}{'H' if many else 'B'}", associations, at)
            yield from (each & (0x7FFF if many else 0x7F) for each in told)
        at += links * (2 if many else 1)


def _box(clap: memoryview, size: tuple[int, int]) -> Box | None:
    """Return the aperture in whole pixels: told are its size and how far its centre is off."""
    numbers = struct.unpack_from(_CLAP, clap)
    width, height, across, down = (
        Fraction(above, below) for above, below in zip(numbers[::2], numbers[1::2], strict=True)
    )
    wide, high = math.floor(width), math.floor(height)
    left = math.floor(across + (size[0] - width) / 2)
    top = math.floor(down + (size[1] - height) / 2)
    box = left, top, left + wide, top + high
    inside = left >= 0 and top >= 0 and box[2] <= size[0] and box[3] <= size[1]
    return box if inside and wide and high and box != (0, 0, *size) else None
