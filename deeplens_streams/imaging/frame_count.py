"""How many frames or pages a file has, counted without decoding one, and not beyond a limit."""

import struct
from typing import BinaryIO, Final

from PIL import Image

from deeplens_streams.errors import TooManyFrames
from deeplens_streams.imaging.formats import GIF, TIFF, PictureFormat

#: Only the first is looked at; the rest would be work for whoever shows the original.
MAX_FRAMES: Final = 1_000

_GIF_HEADER: Final = 13
_GIF_IMAGE, _GIF_EXTENSION = 0x2C, 0x21
#: Offset of the first directory, its count, the size of an entry, and of the next one's offset.
_TIFF: Final = {42: (4, "H", 12, "I"), 43: (8, "Q", 20, "Q")}


def check_frames(file: BinaryIO, image: Image.Image, found: PictureFormat) -> None:
    """Raise `TooManyFrames` if the file, open as `image`, has more than `MAX_FRAMES`."""
    at = file.tell()
    if found is GIF:
        frames = _gif_frames(file)
    elif found is TIFF:
        frames = _tiff_pages(file)
    else:  # their headers say it
        frames = getattr(image, "n_frames", 1)
    file.seek(at)
    if frames > MAX_FRAMES:
        raise TooManyFrames(f"The picture has more than {MAX_FRAMES:,} frames or pages.")


def _gif_frames(file: BinaryIO) -> int:
    """Count image descriptors; a damaged file has those that are found before the damage."""
    file.seek(0)
    header = file.read(_GIF_HEADER)
    file.seek(_colours(header[10:11]), 1)
    frames = 0
    while frames <= MAX_FRAMES and (kind := file.read(1)):
        if kind[0] == _GIF_IMAGE:
            frames += 1
            file.seek(_colours(file.read(9)[8:9]) + 1, 1)
        elif kind[0] == _GIF_EXTENSION:
            file.seek(1, 1)
        else:
            break
        while size := file.read(1):
            if not size[0]:
                break
            file.seek(size[0], 1)
    return frames


def _colours(flags: bytes) -> int:
    """Return the bytes of a colour table from the flags before it."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _tiff_pages(file: BinaryIO) -> int:
    """Count directories along their chain, which may be a circle."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    try:
        at, count, entry, offset = _TIFF[struct.unpack(f"{order}H", head[2:4])[0]]
        where = struct.unpack_from(f"{order}{offset}", head, at)[0]
        pages = 0
        while where and pages <= MAX_FRAMES:
            pages += 1
            file.seek(where)
            entries = struct.unpack(f"{order}{count}", file.read(struct.calcsize(count)))[0]
            file.seek(where + struct.calcsize(count) + entries * entry)
            where = struct.unpack(f"{order}{offset}", file.read(struct.calcsize(f"={offset}")))[0]
    except (struct.error, KeyError, OverflowError, OSError, ValueError):
        pass  # the chain ends in damage
    return pages
