"""What light a sample stands for: the curves that files name, and sRGB's both ways.

Samples are 0 to 1, and light is 1 where paper is white, but for `hlg`.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating]
#: Nits of white paper, which is a screen's white: ITU-R BT.2408.
WHITE: Final = 203.0
#: Samples up to which a curve is a line, and a root.
_SRGB_LINE: Final = 0.04045
_HLG_ROOT: Final = 0.5

Curve = Callable[[Values], Values]


def srgb(samples: Values) -> Values:
    return np.where(samples <= _SRGB_LINE, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def srgb_samples(light: Values) -> Values:
    """Return sRGB's samples of light, 0 to 1; the other way round than all else here."""
    return np.where(light <= _SRGB_LINE / 12.92, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def gamma(exponent: float) -> Curve:
    return lambda samples: samples**exponent


def smpte_240(samples: Values) -> Values:
    return np.where(samples < 4 * 0.0228, samples / 4, ((samples + 0.1115) / 1.1115) ** (1 / 0.45))


def smpte_428(samples: Values) -> Values:
    """Cinema's curve; its white has room above it."""
    return 52.37 / 48 * samples**2.6


def pq(samples: Values) -> Values:
    """SMPTE ST 2084: 1 is white paper, 10,000 nits are the most."""
    root = samples ** (32 / 2523)
    above = np.maximum(root - 3424 / 4096, 0)
    light: Values = 10_000 / WHITE * (above / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)
    return light


def hlg(samples: Values) -> Values:
    """ITU-R BT.2100: light of the scene, of which a screen makes its own."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(samples <= _HLG_ROOT, samples**2 / 3, (np.exp((samples - c) / a) + b) / 12)


#: By their numbers in ITU-T H.273. What was filmed for BT.709 and its like is shown as BT.1886
#: says, and not backwards through the camera's curve.
NUMBERED: Final[dict[int, Curve]] = {
    **dict.fromkeys((1, 6, 11, 14, 15), gamma(2.4)),
    4: gamma(2.2),
    5: gamma(2.8),
    7: smpte_240,
    8: gamma(1.0),
    13: srgb,
    16: pq,
    17: smpte_428,
    18: hlg,
}
