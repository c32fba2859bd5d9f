"""TIFFs as they are meant where Pillow takes them for something else, or not at all.

Pillow's own readers of uncompressed pixels know one plane of bytes; libtiff, which reads what is
compressed, knows the rest as well. What Pillow has no mode for is read as one of the same length,
and `tiff_samples` makes of it what it is.
"""

import math
from typing import Any, Final

from PIL import ImagePalette, TiffImagePlugin
from PIL.TiffImagePlugin import OPEN_INFO, TiffImageFile

WHITE_IS_ZERO, BLACK_IS_ZERO, YCBCR = 0, 1, 6
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
PLANES: Final = 2
#: Modes whose second band Pillow does not find if it is a plane of its own.
ONE_BAND_AND_ALPHA: Final = {"LA", "La", "PA"}
#: Compressions: none, and one that libtiff decodes (which one it is, it reads for itself).
_NONE, _ANY = 1, 5
#: The most that an old writer put into a palette, whose entries should be of 16 bits.
_BYTE: Final = 255
#: Pillow looks for the number of a BigTIFF on the side where little-endian files have it.
BIG_BIG: Final = b"MM\0+"

#: Pillow's mode and how to read it, by sample format and bits, for either order of bytes.
_GREY: Final = {
    (UNSIGNED, 12): {"II": ("I;16", "I;12")},
    (UNSIGNED, 16): {"II": ("I;16", "I;16"), "MM": ("I;16B", "I;16B")},
    (UNSIGNED, 32): {"II": ("I", "I;32N"), "MM": ("I", "I;32B")},
    (SIGNED, 16): {"II": ("I", "I;16S"), "MM": ("I", "I;16BS")},
    (SIGNED, 32): {"II": ("I", "I;32S"), "MM": ("I", "I;32BS")},
    (FLOAT, 16): {"II": ("I;16", "I;16"), "MM": ("I;16B", "I;16B")},
    (FLOAT, 32): {"II": ("F", "F;32F"), "MM": ("F", "F;32BF")},
    (FLOAT, 64): {"II": ("F", "F;64F"), "MM": ("F", "F;64BF")},
}
#: What libtiff has put into the machine's own order.
_NATIVE: Final = {
    "I;32B": "I;32N",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
    "F;64F": "F;64NF",
    "F;64BF": "F;64NF",
}

for (_format, _bits), _orders in _GREY.items():
    for _order, _mode in _orders.items():
        for _zero in (WHITE_IS_ZERO, BLACK_IS_ZERO):
            OPEN_INFO[_order.encode(), _zero, (_format,), 1, (_bits,), ()] = _mode


class Tiff(TiffImageFile):
    """A TIFF whose pixels libtiff reads where Pillow's own reader would misread them."""

    def _open(self) -> None:
        if self.fp is not None and self.fp.read(4) == BIG_BIG:
            raise SyntaxError("big-endian BigTIFF")
        if self.fp is not None:
            self.fp.seek(0)
        super()._open()

    def _setup(self) -> None:
        planes = are_apart(self)
        plain = self.tag_v2.get(TiffImagePlugin.COMPRESSION, _NONE) == _NONE
        if plain and (planes or photometric(self) == YCBCR):
            self.tag_v2[TiffImagePlugin.COMPRESSION] = _ANY  # which Pillow leaves to libtiff
        super()._setup()
        if plain:
            self.tag_v2[TiffImagePlugin.COMPRESSION] = _NONE
        if planes and self.mode in ONE_BAND_AND_ALPHA:
            raise SyntaxError("alpha in a plane beside one band")
        if self.use_load_libtiff:
            self._read_native(planes)
        elif not self._is_covered():
            raise SyntaxError("fewer strips or tiles than the size needs")
        if self.mode in {"P", "PA"}:
            self._read_bytes_of_palette()

    def _read_bytes_of_palette(self) -> None:
        """Take a palette of no more than a byte an entry as it is, as libtiff's own tools do."""
        entries = self.tag_v2[TiffImagePlugin.COLORMAP]
        if max(entries) <= _BYTE:
            self.palette = ImagePalette.raw("RGB;L", bytes(entries))

    def _is_covered(self) -> bool:
        """Tell whether each pixel is in a strip or a tile; libtiff looks for itself."""
        boxes = [each.extents for each in self.tile if each.extents]
        covered = sum((right - left) * (low - top) for left, top, right, low in boxes)
        return covered >= math.prod(self._tile_size)

    def _read_native(self, planes: bool) -> None:
        for number, tile in enumerate(self.tile):
            arguments: Any = tile.args
            raw = _NATIVE.get(arguments[0], arguments[0])
            if planes and self.mode == "RGBA":
                raw = raw.rstrip("X")  # a plane that is no colour is not read
            self.tile[number] = tile._replace(args=(raw, *arguments[1:]))


def are_apart(image: TiffImageFile) -> bool:
    """Tell whether each kind of sample is in a plane of its own."""
    return bool(image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == PLANES)


def photometric(image: TiffImageFile) -> Any:
    """Return what the samples mean."""
    return image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO)
