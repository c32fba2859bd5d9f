"""Colours that a file tells by numbers: which they are, and how they come to be sRGB."""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplens_streams.imaging import curves
from deeplens_streams.imaging.primaries import BT709, BT2020, Primaries, between
from deeplens_streams.imaging.tone_mapping import USUAL_PEAK, dimmed

Floats = npt.NDArray[np.float32]

#: Coefficients of luminance in BT.2020.
_LUMINANCE: Final = np.array((0.2627, 0.6780, 0.0593), np.float32)
#: The gamma of a screen that shows HLG up to `USUAL_PEAK`: ITU-R BT.2100.
_SCREEN: Final = 1.2
#: Steps of light that sRGB's curve is kept in: a tenth of a level where it is steepest.
_STEPS: Final = 32_768
_LEVELS: Final = np.arange(256) / 255


@dataclass(frozen=True)
class ToldSpace:
    """A file's colours.

    Attributes
    ----------
    curve : what light a sample is; one of those in `curves`.
    peak : nits of the brightest pixel, where the file tells that; it counts for PQ and HLG.
    """

    primaries: Primaries
    curve: curves.Curve
    peak: float | None = None

    @property
    def is_srgb(self) -> bool:
        return self.primaries == BT709 and self.curve is curves.srgb

    def to_srgb(self, small: Image.Image) -> Image.Image:
        """Return a picture in these colours as RGB in sRGB; it takes 30 bytes a pixel."""
        small = small.convert("RGB")
        light = self.curve(_LEVELS).astype(np.float32)
        if self.curve in {curves.pq, curves.hlg}:
            return _picture(self._on_a_screen(light[np.asarray(small)]))
        if self.primaries == BT709:
            return small.point(_coded(light).tolist() * 3)
        return _picture(light[np.asarray(small)] @ _matrix(self.primaries, BT709))

    def _on_a_screen(self, light: Floats) -> Floats:
        """Return BT.709 of light that goes beyond white."""
        wide = light @ _matrix(self.primaries, BT2020)
        if self.curve is curves.hlg:
            luminance = (wide @ _LUMINANCE).clip(0)[..., None]
            wide *= luminance ** (_SCREEN - 1) * np.float32(USUAL_PEAK / curves.WHITE)
        narrow: Floats = dimmed(wide, self.peak or USUAL_PEAK) @ _matrix(BT2020, BT709)
        return narrow


def _matrix(source: Primaries, target: Primaries) -> Floats:
    """Return what a row of colours is multiplied with."""
    return between(source, target).T.astype(np.float32)


def _picture(light: Floats) -> Image.Image:
    return Image.fromarray(_coded(light))


def _coded(light: Floats) -> npt.NDArray[np.uint8]:
    steps = (light.clip(0, 1) * _STEPS + 0.5).astype(np.uint16)
    coded: npt.NDArray[np.uint8] = _srgb_of_steps()[steps]
    return coded


@cache
def _srgb_of_steps() -> npt.NDArray[np.uint8]:
    samples = curves.srgb_samples(np.arange(_STEPS + 1) / _STEPS)
    return np.round(samples * 255).astype(np.uint8)
