"""Colours that a PNG tells by numbers, in the order of precedence that the standard has."""

import struct
from typing import Any, Final

from deeplens_streams.imaging import curves, primaries
from deeplens_streams.imaging.primaries import BT709, Primaries, between
from deeplens_streams.imaging.told_space import ToldSpace

#: Lengths of the chunks that Pillow has no reader for; their bytes stand in a picture's info.
NUMBERS: Final = {b"cICP": 4, b"mDCV": 24, b"cLLI": 8}
#: RGB, in all of the range: nothing else is a PNG's.
_PLAIN: Final = b"\0\1"
#: Nits in mDCV and cLLI.
_NITS: Final = 0.0001
_MDCV_PEAK: Final = 16
#: A gamma alone, as near to this one as libpng takes for the same, is that of sRGB.
_SRGB_GAMMA: Final = 1 / 2.2
_NEAR: Final = 0.05


def cicp_space(info: dict[Any, Any]) -> ToldSpace | None:
    """Return what cICP says, which goes before a profile; None if it says nothing that is known."""
    told = info.get("cICP")
    if told is None or told[2:] != _PLAIN:
        return None
    corners, curve = primaries.NUMBERED.get(told[0]), curves.NUMBERED.get(told[1])
    if corners is None or curve is None:
        return None
    return ToldSpace(corners, curve, _peak(info))


def gamma_space(info: dict[Any, Any]) -> ToldSpace | None:
    """Return what gAMA and cHRM say, which counts if nothing else does."""
    told = info.get("gamma")
    if not told or "srgb" in info:
        return None
    corners = info.get("chromaticity")
    if corners is None:
        near = abs(told / _SRGB_GAMMA - 1) <= _NEAR
        return None if near else ToldSpace(BT709, curves.gamma(1 / told))
    white, red, green, blue = zip(corners[::2], corners[1::2], strict=True)
    found = Primaries(red, green, blue, white)
    try:
        between(found, BT709)
    except ValueError:
        return None
    return ToldSpace(found, curves.gamma(1 / told))


def _peak(info: dict[Any, Any]) -> float | None:
    """Return the brightest pixel's nits, or those of the screen that it was made on."""
    for name, at in (("cLLI", 0), ("mDCV", _MDCV_PEAK)):
        told: int = struct.unpack_from(">I", info[name], at)[0] if name in info else 0
        if told:
            return told * _NITS
    return None
