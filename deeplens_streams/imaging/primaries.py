"""Where a space's red, green, blue and white lie, and the way from one space to another."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Matrix = npt.NDArray[np.float64]

#: Bradford's cones, by which a colour is seen under another white.
_CONES: Final = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
#: Twice the area of the smallest triangle that is a space.
_SPAN: Final = 1e-6
_D65: Final = (0.3127, 0.3290)
_C: Final = (0.310, 0.316)


class Primaries(NamedTuple):
    """A space's corners, x and y of CIE 1931 each."""

    red: Point
    green: Point
    blue: Point
    white: Point


BT709: Final = Primaries((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65)
BT2020: Final = Primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65)
_BT601: Final = Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65)

#: By their numbers in ITU-T H.273.
NUMBERED: Final = {
    1: BT709,
    4: Primaries((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: Primaries((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: _BT601,
    7: _BT601,
    8: Primaries((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: BT2020,
    10: Primaries((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),
    11: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: Primaries((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}


def between(source: Primaries, target: Primaries) -> Matrix:
    """Return (3, 3): what linear RGB of `source` is in `target`, white staying white.

    Raises
    ------
    ValueError
        No colour is made of one of them.
    """
    there, here = _to_xyz(source), _to_xyz(target)
    seen, wanted = _CONES @ there.sum(axis=1), _CONES @ here.sum(axis=1)
    if not (seen > 0).all() or not (wanted > 0).all():
        raise ValueError("white is not a colour that anybody sees")
    adapted = np.linalg.inv(_CONES) @ np.diag(wanted / seen) @ _CONES
    matrix: Matrix = np.linalg.inv(here) @ adapted @ there
    return matrix


def _to_xyz(primaries: Primaries) -> Matrix:
    """Return (3, 3): from linear RGB to XYZ under the space's own white, which has Y = 1."""
    corners = np.array([(x, y, 1 - x - y) for x, y in primaries[:3]]).T
    x, y = primaries.white
    told = np.array(primaries)
    if told.min() < 0 or told.max() > 1 or y == 0 or abs(np.linalg.det(corners)) < _SPAN:
        raise ValueError("the primaries span no colours")
    white = np.array((x / y, 1, (1 - x - y) / y))
    matrix: Matrix = corners * np.linalg.solve(corners, white)
    return matrix
