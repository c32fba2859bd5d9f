"""JPEGs that lack their end: shown, as browsers do, if it is no more than the last row of blocks.

How much is missing nobody says, so it is measured. What is there decodes to the same pixels
whatever follows it; where pixels change with what follows, there is none of their own.

Where there is an end marker and rows are missing in front of it, the decoder says nothing at all.
It makes grey of them, so that is measured if the last row of pixels is that grey.
"""

import io
import re
from collections.abc import Iterator
from typing import Any, Final, cast

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

_END: Final = b"\xff\xd9"
#: Bytes that no block ends with by chance, without a marker among them.
_NOISE: Final = bytes(each * 73 % 251 for each in range(1, 4_096))
#: A marker, as opposed to a byte of coefficients and what restarts them.
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SCAN: Final = 0xDA
_SCAN_MARKER: Final = b"\xff\xda"
#: The segment that says how often coefficients restart.
_RESTARTS: Final = b"\xff\xdd\0\4"
_COEFFICIENTS: Final = 64
#: Rows that are compared at once, which takes little memory beside the pictures.
_ROWS: Final = 256
#: Bytes that are looked through at once: an upload's header is read in a process that has many.
_PIECE: Final = 65_536
_END_KIND: Final = 0xD9
#: What libjpeg makes of coefficients that are not there, in ink, too.
_EMPTY: Final = range(127, 130)
#: Rows of pixels above a block that change with it, because colours are smoothed.
_SMOOTHED: Final = 2


def load(image: JpegImageFile) -> None:
    """Load the pixels, also if no more than the last row of blocks is missing.

    Raises
    ------
    OSError
        It is damaged, or more is missing.
    """
    fresh = {each: getattr(image, each) for each in ("tile", "decoderconfig", "_size", "_mode")}
    source = cast(Any, image.fp)
    try:
        image.load()
    except OSError:
        data = _whole(source)
        if _END in data[-2:] or not _has_all_scans(image, data):
            raise
        shown = _loaded(data, _END, fresh)
        image.im = shown.im  # what was there is not needed beside it
        if _lacks_rows(shown, data, fresh):
            raise
        image.tile = []
    else:
        if _ends_empty(image):
            _check_rows(image, _whole(source), fresh)


def _whole(source: Any) -> bytes:
    source.seek(0)
    data: bytes = source.read()
    return data


def lacks_end(source: Any) -> bool:
    """Tell whether a JPEG, read up to its first scan, has no end; it is left where it was."""
    at = source.tell()
    try:
        source.seek(-2, 2)
        if source.read(2) == _END:
            return False
        source.seek(at)
        last = b""  # an end may lie across two pieces
        while piece := source.read(_PIECE):
            if _END in last + piece:
                return False
            last = piece[-1:]
        return True
    finally:
        source.seek(at)


def _ends_empty(image: JpegImageFile) -> bool:
    """Tell whether the last row of pixels may be of blocks that are not there."""
    extrema = image.crop((0, image.height - 1, image.width, image.height)).getextrema()
    pairs = cast(Any, extrema if image.mode != "L" else (extrema,))
    return all(low == high and low in _EMPTY for low, high in pairs)


def _check_rows(image: JpegImageFile, data: bytes, fresh: dict[str, Any]) -> None:
    """Raise OSError if more than the last row of blocks is missing in front of the end marker."""
    end = _end(data)
    if end is not None and _lacks_rows(image, data[:end], fresh):
        raise OSError("rows are missing in front of the end marker")


def _lacks_rows(shown: JpegImageFile, data: bytes, fresh: dict[str, Any]) -> bool:
    """Tell whether more than the last row of blocks is missing of a JPEG without its end marker."""
    last = _last_row(shown, fresh["decoderconfig"])
    others = (_loaded(data, tail, fresh) for tail in _tails(data))
    return any(_first_difference(shown, other) < last for other in others)


def _tails(data: bytes) -> Iterator[bytes]:
    """Yield what could follow: noise, and where something restarts, noise behind a restart."""
    yield _NOISE + _END
    begin = data.rfind(_SCAN_MARKER)
    if _RESTARTS in data[:begin]:
        number = max(range(8), key=lambda each: data.rfind(bytes([0xFF, 0xD0 + each]), begin))
        there = data.find(bytes([0xFF, 0xD0 + number]), begin) >= 0
        yield bytes([0xFF, 0xD0 + (number + there) % 8]) + _NOISE + _END


def _end(data: bytes) -> int | None:
    """Return where the end marker of the picture is; one in a segment is another's."""
    at = _first_scan(data)
    while found := _MARKER.search(data, at):
        at = found.end()
        if data[at - 1] == _END_KIND:
            return found.start()
        at += int.from_bytes(data[at : at + 2], "big")
    return None


def _loaded(data: bytes, tail: bytes, fresh: dict[str, Any]) -> JpegImageFile:
    image = JpegImageFile(io.BytesIO(data.rstrip(b"\xff") + tail))
    for name, value in fresh.items():
        setattr(image, name, list(value) if name == "tile" else value)
    image.load()
    return image


def _first_difference(one: JpegImageFile, other: JpegImageFile) -> int:
    """Return the first row in which they differ, or their height."""
    for top in range(0, one.height, _ROWS):
        box = (0, top, one.width, min(top + _ROWS, one.height))
        differ = np.asarray(one.crop(box)) != np.asarray(other.crop(box))
        rows = differ.reshape(len(differ), -1).any(axis=1)
        if rows.any():
            return top + int(rows.argmax())
    return one.height


def _last_row(image: JpegImageFile, decoderconfig: tuple[int, ...]) -> int:
    """Return where the last row of blocks begins, in rows of the reduced picture."""
    tall = 8 * max(each[2] for each in image.layer)
    scale = decoderconfig[0] if decoderconfig else 1
    whole = image.height * scale
    return ((whole - 1) // tall) * tall // scale - _SMOOTHED


def _has_all_scans(image: JpegImageFile, data: bytes) -> bool:
    """Tell whether each colour has begun with all of its coefficients, to their last bit."""
    missing = {each[0]: set(range(_COEFFICIENTS)) for each in image.layer}
    for found in _MARKER.finditer(data, _first_scan(data)):
        if data[found.end() - 1] != _SCAN:
            continue
        header = data[found.end() + 2 : found.end() + 2 + 1 + 2 * 4 + 3]
        count = header[0] if header else 0
        if len(header) < 4 + 2 * count:
            return False
        start, end, bits = header[1 + 2 * count : 4 + 2 * count]
        if not bits & 15:
            for colour in header[1 : 1 + 2 * count : 2]:
                missing.get(colour, set()).difference_update(range(start, end + 1))
    return not any(missing.values())


def _first_scan(data: bytes) -> int:
    """Return where the first scan's marker is: in front of it lie segments, thumbnails in them."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != bytes([_SCAN]):
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at
