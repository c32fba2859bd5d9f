"""Colours that AVIF and HEIC tell by numbers: ``nclx``, and ``clli`` beside it."""

import struct
from typing import Final

from deeplens_streams.errors import UndecodableImage
from deeplens_streams.imaging import curves, primaries
from deeplens_streams.imaging.isobmff import primary_properties
from deeplens_streams.imaging.primaries import BT709
from deeplens_streams.imaging.told_space import ToldSpace

#: Cameras' curves, which photographs have that are sRGB in truth; Chromium shows them so.
_CAMERAS: Final = {1, 6, 14, 15}


def nclx_space(data: memoryview) -> ToldSpace | None:
    """Return what the primary picture's properties say, or None if they say nothing.

    A number that names nothing, "unspecified" among them, is that of sRGB.
    """
    told, peak = None, None
    try:
        for kind, body in primary_properties(data):
            if kind == b"colr" and bytes(body[:4]) == b"nclx" and told is None:
                told = struct.unpack_from(">HH", body, 4)
            elif kind == b"clli" and peak is None:
                peak = struct.unpack_from(">H", body)[0]
    except (struct.error, UndecodableImage):
        return None
    if told is None:
        return None
    curve = None if told[1] in _CAMERAS else curves.NUMBERED.get(told[1])
    return ToldSpace(primaries.NUMBERED.get(told[0], BT709), curve or curves.srgb, peak or None)
