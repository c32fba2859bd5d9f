"""EXIF that a PNG has behind its pixels, where exiftool writes it."""

import struct
import zlib
from typing import BinaryIO, Final

_SIGNATURE: Final = 8
_CRC: Final = 4
#: Chunks that are passed over, at the most: pixels usually come in pieces of 8 KiB or more.
_MOST: Final = 65_536


def late_exif(file: BinaryIO, most: int) -> bytes | None:
    """Return the content of the first whole ``eXIf`` behind the pixels, of `most` bytes; else None.

    One with a wrong checksum is passed over, as in front of the pixels. Of other chunks nothing but
    the heads is read. Where `file` stood, it stands again.
    """
    back, pixels = file.tell(), False
    file.seek(_SIGNATURE)
    try:
        for _ in range(_MOST):
            length, kind = struct.unpack(">I4s", file.read(8))
            if kind == b"eXIf" and pixels:
                body = file.read(length) if length <= most else b""
                if len(body) < length or not body:
                    return None
                if file.read(_CRC) == struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))):
                    return body
                continue
            if kind == b"IEND":
                return None
            pixels = pixels or kind == b"IDAT"
            file.seek(length + _CRC, 1)
    except (struct.error, OverflowError, ValueError):
        pass  # the file ends here
    finally:
        file.seek(back)
    return None
