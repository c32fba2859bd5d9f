"""What a picture that could not be decoded declares itself to be, if no decoder here knows that.

Asked behind a failure: what a decoder says of damage reads like what it says of a kind that it does
not know, so its words are not looked at, but what the file's own header declares.
"""

import struct
from collections.abc import Callable
from typing import Any, BinaryIO, Final

from PIL.TiffImagePlugin import COMPRESSION_INFO, MAX_SAMPLESPERPIXEL, OPEN_INFO

from deeplens_streams.imaging import tiff
from deeplens_streams.imaging.raw_files import raw_file
from deeplens_streams.imaging.tiff_directories import Directory, directories

_SEGMENTS: Final = 200
_LOSSLESS: Final = {0xC3, 0xC7, 0xCB, 0xCF}
_HIERARCHICAL: Final = {0xC5, 0xC6, 0xCD, 0xCE}
_FRAMES: Final = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_COLOURS: Final = {1, 3, 4}
_DEEP_JPEG: Final = 12

_BMP_BITS: Final = {1, 4, 8, 16, 24, 32}
_BMP_COMPRESSIONS: Final = {0, 1, 2, 3}
_FIELDS: Final = 3
#: Header sizes of a bitmap: two of OS/2, and the least that tells of a compression.
_OS2, _SHORT_OS2, _WITHOUT_MASKS = 12, 16, 40
#: By bits, the fields of red, green and blue that are known; none are the usual ones.
_MASKS: Final = {
    16: {(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)},
    24: {(0xFF0000, 0xFF00, 0xFF)},
    32: {
        (0, 0, 0),
        (0xFF0000, 0xFF00, 0xFF),
        (0xFF000000, 0xFF0000, 0xFF00),
        (0xFF000000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000),
    },
}

_BITS, _COMPRESSION, _MEANING, _FILL_ORDER, _SAMPLES = 258, 259, 262, 266, 277
_PLANES, _EXTRA, _SAMPLE_FORMAT = 284, 338, 339
#: Compressions that Pillow has a name for and its libtiff no decoder.
_WEBP: Final = 50001
_OLD_JPEG: Final = 6
#: Colours by meaning: RGB, ink, YCbCr and Lab; of all else there is one.
_OF_MEANING: Final = {2: 3, 5: 4, 6: 3, 8: 3}


def unknown_kind(file: BinaryIO, name: str) -> str | None:
    """Return the kind in a few words; None if it is a known one, or the header is damaged, too.

    Parameters
    ----------
    name : of the format, as Pillow has it.
    """
    look = _LOOKS.get(name)
    try:
        return None if look is None else look(file)
    except (struct.error, IndexError):  # the header ends
        return None


def _jpeg(file: BinaryIO) -> str | None:
    file.seek(2)
    for _ in range(_SEGMENTS):
        mark, kind, length = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF:  # noqa: PLR2004 -- begins each segment
            return None
        if kind in _FRAMES:
            return _frame(kind, length, file.read(6))
        file.seek(length - 2, 1)
    return None


def _frame(kind: int, length: int, body: bytes) -> str | None:
    bits, colours = body[0], body[5]
    if length != 8 + 3 * colours:
        return None
    if bits == _DEEP_JPEG:
        return "12-bit samples"
    if kind in _LOSSLESS or kind in _HIERARCHICAL:
        return "lossless" if kind in _LOSSLESS else "hierarchical"
    return None if colours in _COLOURS else f"{colours} colours"


def _bmp(file: BinaryIO) -> str | None:
    file.seek(14)
    head = file.read(56)
    (size,) = struct.unpack_from("<I", head)
    if size == _SHORT_OS2:
        return "a header of 16 bytes"
    (bits,) = struct.unpack_from("<H", head, 10 if size == _OS2 else 14)
    if bits not in _BMP_BITS:
        return f"pixel depth of {bits}"
    if size < _WITHOUT_MASKS:
        return None
    (compression,) = struct.unpack_from("<I", head, 16)
    if compression not in _BMP_COMPRESSIONS:
        return f"compression {compression}"
    if compression == _FIELDS and struct.unpack_from("<III", head, 40) not in _MASKS.get(bits, ()):
        return "bit fields"
    return None


def _tiff(file: BinaryIO) -> str | None:
    found = directories(file)
    # Of a camera's file it is the JPEG in it that failed.
    if not found or found[0].cut or raw_file(file):
        return None
    first = found[0]
    file.seek(0)
    order = file.read(4)
    if order == tiff.BIG_BIG:
        return "big-endian BigTIFF"
    compression = first.number(_COMPRESSION, 1)
    if compression not in COMPRESSION_INFO or compression == _WEBP:
        return f"compression {compression}"
    known: dict[Any, tuple[str, str]] = OPEN_INFO
    if mode := known.get(_key(order[:2], first, compression)):
        apart = first.number(_PLANES, 1) == tiff.PLANES and mode[0] in tiff.ONE_BAND_AND_ALPHA
        return "alpha in a plane of its own beside one band" if apart else None
    told = f"bits {first.numbers.get(_BITS, (1,))}, sample format {first.number(_SAMPLE_FORMAT, 1)}"
    return f"photometric {first.number(_MEANING)}, {told}"


def _key(order: bytes, first: Directory, compression: int) -> object:
    """Return by what Pillow finds a mode for the samples, or what it has none for."""
    meaning = 6 if compression == _OLD_JPEG else first.number(_MEANING)
    forms = first.numbers.get(_SAMPLE_FORMAT, (1,))
    bits, extra = first.numbers.get(_BITS, (1,)), first.numbers.get(_EXTRA, ())
    samples = first.number(_SAMPLES, _OF_MEANING[meaning] if compression == _OLD_JPEG else 1)
    if samples > MAX_SAMPLESPERPIXEL:
        return None
    if first.number(_PLANES, 1) == tiff.PLANES and extra and not any(extra):
        bits, samples, extra = bits[: -len(extra)], samples - len(extra), ()
    if len(bits) == 1:
        bits *= samples
    form = (forms[0],) if len(set(forms)) == 1 else forms
    return order, meaning, form, first.number(_FILL_ORDER, 1), bits[:samples], extra


_LOOKS: Final[dict[str, Callable[[BinaryIO], str | None]]] = {
    "BMP": _bmp,
    "JPEG": _jpeg,
    "TIFF": _tiff,
}
