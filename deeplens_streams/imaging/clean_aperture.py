"""The part of an AVIF that is shown: its primary item's clean aperture, `clap`."""

import math
import struct
from fractions import Fraction
from typing import Any, Final

from PIL.AvifImagePlugin import AvifImageFile

from deeplens_streams.errors import UndecodableImage
from deeplens_streams.imaging.isobmff import boxes, primary_properties

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
    if bytes(top.get(b"ftyp", b"")[:4]) == _SEQUENCE:
        return None
    return next((body for kind, body in primary_properties(data) if kind == b"clap"), None)


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
