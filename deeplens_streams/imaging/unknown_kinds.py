"""Which of a decoder's complaints are of a kind that it does not know, and not of damage."""

import re
from typing import Final

#: What Pillow and libheif say of what is whole and beyond them.
_COMPLAINTS: Final = re.compile(
    r"unsupported|not (yet )?supported|unknown pixel mode|unknown data organization"
    r"|unknown compression|cannot handle|big-endian BigTIFF",
    re.IGNORECASE,
)
_TOLD: Final = 100


def unknown_kind(error: Exception) -> str | None:
    """Return what the kind is, as the decoder says it; None if the picture is just damaged."""
    told = str(error)
    if not _COMPLAINTS.search(told):
        return None
    return "".join(each for each in told if each.isprintable())[:_TOLD]
