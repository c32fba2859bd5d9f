"""TIFFs as they are meant where Pillow takes them for something else, or not at all.

Pillow's own readers of uncompressed pixels know one plane of bytes; libtiff, which reads what is
compressed, knows the rest as well. What Pillow has no mode for is read as one of the same length,
and `tiff_samples` makes of it what it is.
"""

from typing import Any, Final

from PIL import TiffImagePlugin
from PIL.ImageFile import _Tile
from PIL.TiffImagePlugin import OPEN_INFO, TiffImageFile

WHITE_IS_ZERO, BLACK_IS_ZERO, YCBCR = 0, 1, 6
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
_PLANES: Final = 2
#: Pillow looks for the number of a BigTIFF on the side where little-endian files have it.
BIG_BIG: Final = b"MM\0+"
_BYTE: Final = 8

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
        super()._setup()
        planes = self.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == _PLANES
        bits = max(self.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        if self.use_load_libtiff:
            self._read_native()
        elif photometric(self) == YCBCR:
            self._mode = "RGB"
            self._read_by_libtiff("RGBX")
        elif planes and bits > _BYTE and self.mode in {"RGB", "RGBA", "CMYK"}:
            self._read_by_libtiff(f"{self.mode};16N")

    def _read_native(self) -> None:
        for number, tile in enumerate(self.tile):
            arguments: Any = tile.args
            raw = _NATIVE.get(arguments[0], arguments[0])
            self.tile[number] = tile._replace(args=(raw, *arguments[1:]))

    def _read_by_libtiff(self, raw: str) -> None:
        width, height = self._tile_size
        arguments = raw, False, self.tag_v2.offset
        self.tile = [_Tile("libtiff", (0, 0, width, height), 0, arguments)]
        self.use_load_libtiff = True


def photometric(image: TiffImageFile) -> Any:
    """Return what the samples mean."""
    return image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO)
