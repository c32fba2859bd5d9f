"""Raw files of cameras that begin like a TIFF, whose first directory is a stamp of the picture.

DNG, NEF, ARW, PEF, CR2, IIQ and their like are told by what their directories hold, never by their
names. Raw pixels are not developed here: many files carry a JPEG of full size that the camera made,
and of the rest a stamp would be all.
"""

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

from deeplens_streams.imaging.tiff_directories import Directory, directories

_KIND, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 259, 262
_STRIPS, _STRIP_BYTES, _JPEG, _JPEG_BYTES = 273, 279, 513, 514
_MAKE, _MODEL, _ORIENTATION, _DNG_VERSION = 271, 272, 274, 50706
#: A directory that is a smaller copy of another one.
_REDUCED: Final = 1
#: Samples behind a colour filter, and those of a sensor made linear.
_SENSOR: Final = {32803, 34892}
#: Compressions of camera makers: Sony, Samsung, Nikon, Kodak, Pentax.
_MAKERS: Final = {32767, 32770, 34713, 65000, 65535}
#: What follows a TIFF's first four bytes in files of Canon, and the first eight in Phase One's.
_MARKS: Final = re.compile(rb"\x10\0\0\0CR\x02\0|.{4}(IIII.waR|MMMMRaw)", re.DOTALL)
#: A JPEG has full size if it has this share of the sensor's longer side: edges are cut.
_FULL: Final = 0.9
_FRAMES: Final = {0xC0, 0xC1, 0xC2}
_ALL_FRAMES: Final = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEGMENTS: Final = 100


@dataclass(frozen=True, slots=True)
class RawFile:
    """A raw file, and the JPEG of full size in it.

    Attributes
    ----------
    jpeg : its place and its bytes; None if there is none.
    orientation : how it is to be turned, as EXIF says it.
    make, model : of the camera.
    """

    jpeg: tuple[int, int] | None
    orientation: int
    make: str
    model: str


def raw_file(file: BinaryIO) -> RawFile | None:
    """Return what a TIFF holds if it is a camera's raw file, else None."""
    file.seek(4)
    marked = _MARKS.match(file.read(12))
    found = directories(file) or [Directory({}, {})]
    first, others = found[0], found[1:]
    # Where the first is a small copy, the picture is elsewhere, as in no ordinary TIFF.
    stamp = bool(others) and first.number(_KIND) & _REDUCED
    if not (marked or stamp or _DNG_VERSION in first.numbers or any(map(_is_raw, found))):
        return None
    whole = max((_longer(each) for each in found), default=0)
    jpegs = [each for each in map(_embedded, found) if each]
    sizes = [(_jpeg_size(file, *each), each) for each in jpegs]
    longest, jpeg = max(sizes, default=(0, None))
    return RawFile(
        jpeg if jpeg is not None and longest > 0 and longest >= _FULL * whole else None,
        first.number(_ORIENTATION, 1),
        first.texts.get(_MAKE, ""),
        first.texts.get(_MODEL, ""),
    )


def _is_raw(directory: Directory) -> bool:
    return directory.number(_PHOTOMETRIC) in _SENSOR or directory.number(_COMPRESSION) in _MAKERS


def _longer(directory: Directory) -> int:
    return max(directory.number(_WIDTH), directory.number(_HEIGHT))


def _embedded(directory: Directory) -> tuple[int, int] | None:
    """Return place and bytes of what may be a JPEG: by its own tags, or as the only strip."""
    for place, length in ((_JPEG, _JPEG_BYTES), (_STRIPS, _STRIP_BYTES)):
        places, lengths = (directory.numbers.get(each, ()) for each in (place, length))
        if len(places) == 1 and len(lengths) == 1:
            return places[0], lengths[0]
    return None


def _jpeg_size(file: BinaryIO, place: int, length: int) -> int:
    """Return the longer side of a JPEG that Pillow reads; 0 of all else, as of raw pixels."""
    try:
        file.seek(place)
        if file.read(2) != b"\xff\xd8":
            return 0
        for _ in range(_SEGMENTS):
            mark, kind, size = struct.unpack(">BBH", file.read(4))
            if mark != 0xFF or file.tell() > place + length:  # noqa: PLR2004 -- begins each segment
                return 0
            if kind in _ALL_FRAMES:
                bits, high, wide = struct.unpack(">BHH", file.read(5))
                return max(high, wide) if kind in _FRAMES and bits == 8 else 0  # noqa: PLR2004
            file.seek(size - 2, 1)
    except (struct.error, OverflowError, OSError, ValueError):
        pass
    return 0
