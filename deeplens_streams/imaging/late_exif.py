"""EXIF that a PNG has behind its pixels, where exiftool writes it."""

import struct
from typing import BinaryIO, Final

_SIGNATURE: Final = 8
_CRC: Final = 4
#: Chunks that are passed over, at the most: pixels usually come in pieces of 8 KiB or more.
_MOST: Final = 65_536


def late_exif(file: BinaryIO, most: int) -> bytes | None:
    """Return the content of the first ``eXIf`` behind the pixels, of `most` bytes; else None.

    Nothing but the heads of chunks is read. Where `file` stood, it stands again.
    """
    back, pixels = file.tell(), False
    file.seek(_SIGNATURE)
    try:
        for _ in range(_MOST):
            length, kind = struct.unpack(">I4s", file.read(8))
            if kind == b"eXIf" and pixels:
                body = file.read(length) if length <= most else b""
                return body if len(body) == length and body else None
            if kind == b"IEND":
                return None
            pixels = pixels or kind == b"IDAT"
            file.seek(length + _CRC, 1)
    except (struct.error, OverflowError, ValueError):
        pass  # the file ends here
    finally:
        file.seek(back)
    return None
