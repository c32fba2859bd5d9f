"""Light of more than white on a screen that has none: the way that browsers dim it.

The curve is the reference white tone mapping of SMPTE ST 2094-50, which Chromium uses.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from deeplens_streams.imaging.curves import WHITE

Floats = npt.NDArray[np.float32]

#: Nits of the brightest pixel where a file tells none.
USUAL_PEAK: Final = 1000.0
#: How far the shoulder's corner lies between the knee and the peak.
_CORNER: Final = 0.65


def dimmed(light: Floats, peak: float) -> Floats:
    """Return (…, 3) light of which no channel is above 1 up to the `peak`; colours stay the same.

    Parameters
    ----------
    light : (…, 3) linear RGB of BT.2020, 1 is white paper.
    peak : nits of the brightest pixel.
    """
    most = peak / WHITE
    if most <= 1:
        return light
    # Up to white all is dimmed alike, by half of the light at the usual peak and above that.
    knee = 1 - min(np.log(most) / np.log(USUAL_PEAK / WHITE), 1) / 2
    largest = light.max(axis=-1, keepdims=True)
    shoulder = _shoulder(largest.clip(1, most), most, knee)
    gain = np.where(largest <= 1, knee, shoulder / largest.clip(1))
    dimmer: Floats = light * gain.astype(np.float32)
    return dimmer


def _shoulder(largest: Floats, most: float, knee: float) -> Floats:
    """Return the height of the quadratic Bézier curve from (1, knee) to (most, 1)."""
    across = 1 - _CORNER + _CORNER / knee
    up = (1 - _CORNER) * knee + _CORNER
    bend, slope = 1 - 2 * across + most, 2 * (across - 1)
    way = 2 * (largest - 1) / (slope + np.sqrt(slope**2 + 4 * bend * (largest - 1)) + 1e-12)
    height: Floats = (1 - way) ** 2 * knee + 2 * way * (1 - way) * up + way**2
    return height
