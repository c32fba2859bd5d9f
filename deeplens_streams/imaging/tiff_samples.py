"""Grey samples of a TIFF, of any type, as 8 bits from black to white.

One rule for all of them: what has a range of its own keeps it, from black to white. Unsigned
samples have that of their bits, floating point ones 0 to 1 if all of them lie there. What has none,
which are signed samples and other floating point ones, is spread: the least sample is black and the
greatest one white. Not-a-number counts as the least, and infinity as the end that it lies at. With
WhiteIsZero the result is turned round.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from deeplens_streams.imaging.tiff import (
    FLOAT,
    SIGNED,
    UNSIGNED,
    WHITE_IS_ZERO,
    are_apart,
    photometric,
)

#: Rows that are worked on at once: in between a sample takes eight bytes.
_ROWS: Final = 64
_WHITE: Final = 255
#: Of a signed byte, as it is stored, one that goes from 0 to 255.
_FROM_SIGNED: Final = [each ^ 128 for each in range(256)]

Samples = npt.NDArray[Any]


def settled(image: TiffImageFile) -> Image.Image:
    """Return the loaded picture as it is meant, L where Pillow has no mode for its samples."""
    if image.mode == "La":
        grey, alpha = image.split()
        return ImageChops.add(grey, ImageChops.invert(alpha))  # on white
    if image.mode == "LAB" and are_apart(image):
        # As planes they are copied, where Pillow's own mode has the two colours from 0 to 255.
        light, *colours = image.split()
        return Image.merge("LAB", [light, *(each.point(_FROM_SIGNED) for each in colours)])
    form = int(image.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, (UNSIGNED,))[0])
    bits = int(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0])
    signed_byte = image.mode == "L" and form == SIGNED and bits == 8  # noqa: PLR2004 -- bits of a byte
    if not (image.mode in {"I", "F"} or image.mode.startswith("I;16") or signed_byte):
        return image
    grey_8 = _to_8_bits(_samples(image, form, bits))
    if photometric(image) == WHITE_IS_ZERO and not signed_byte:
        np.subtract(_WHITE, grey_8, out=grey_8)
    return Image.fromarray(grey_8)


def _samples(image: Image.Image, form: int, bits: int) -> Samples:
    """Return them in their own type, (height, width)."""
    samples = np.asarray(image)
    if image.mode == "L":
        return samples.view(np.int8)
    if image.mode == "I" and form == UNSIGNED:
        return samples.view(np.uint32)
    if image.mode.startswith("I;16") and form == FLOAT:
        return samples.view(np.dtype(np.float16).newbyteorder(samples.dtype.byteorder))
    if image.mode.startswith("I;16") and bits < 16:  # noqa: PLR2004 -- those of the mode
        return samples << (16 - bits)
    return samples


def _to_8_bits(samples: Samples) -> npt.NDArray[np.uint8]:
    grey = np.empty(samples.shape, np.uint8)
    whole, below = samples.dtype.kind == "u", 8 * samples.dtype.itemsize - 8
    low, high = (0.0, 0.0) if whole else _ends(samples)
    for top in range(0, len(samples), _ROWS):
        rows = samples[top : top + _ROWS]
        grey[top : top + _ROWS] = rows >> below if whole else _spread(rows, low, high)
    return grey


def _ends(samples: Samples) -> tuple[float, float]:
    """Return what is black and what is white."""
    low, high = np.inf, -np.inf
    for top in range(0, len(samples), _ROWS):
        rows = samples[top : top + _ROWS].astype(np.float64)
        finite = rows[np.isfinite(rows)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if samples.dtype.kind == "f" and low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high


def _spread(rows: Samples, low: float, high: float) -> Samples:
    if not low < high:
        return np.zeros(rows.shape, np.uint8)
    # Halves, because the distance of the ends may be more than a number can be.
    part = (rows.astype(np.float64) * 0.5 - low * 0.5) / (high * 0.5 - low * 0.5)
    part = np.nan_to_num(part, nan=0.0, posinf=1.0, neginf=0.0)
    return (part.clip(0.0, 1.0) * _WHITE).round().astype(np.uint8)
