"""Pictures that tell their colours by numbers, and those numbers made of sRGB by the standards.

What the product turns into light is turned into samples here, and matrices are those that the
standards print.
"""

import struct

import numpy as np
from PIL import Image
from pillow_heif import register_heif_opener

from tests.support.odd_headers import box, chunk
from tests.support.pictures import saved

register_heif_opener()

#: From linear RGB of BT.709: by ITU-R BT.2087, and to Display P3.
TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
TO_P3 = np.array([[0.8225, 0.1774, 0.0001], [0.0332, 0.9669, -0.0001], [0.0171, 0.0724, 0.9105]])
#: Nits of white in a picture that goes beyond it.
WHITE = 203

_BEHIND_HEADER = 33


def light(srgb: np.ndarray) -> np.ndarray:
    """Return linear BT.709, 0 to 1, of 8-bit samples."""
    coded = srgb / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def srgb_samples(linear: np.ndarray) -> np.ndarray:
    """Return samples, 0 to 1, of linear BT.709: the inverse of `light`."""
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def srgb_level(linear: float) -> float:
    """Return the level of 255 that sRGB has for a light."""
    return 255 * float(srgb_samples(np.array(linear)))


def pq(nits: np.ndarray) -> np.ndarray:
    """Return samples, 0 to 1: the inverse of SMPTE ST 2084's curve."""
    power = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(scene: np.ndarray) -> np.ndarray:
    """Return samples, 0 to 1: the camera's curve of ITU-R BT.2100."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    upper = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)


def levels(samples: np.ndarray) -> np.ndarray:
    """Return 8 bits of samples, 0 to 1."""
    return np.round(samples.clip(0, 1) * 255).astype(np.uint8)


def cicp(primaries: int, curve: int, matrix: int = 0, full: int = 1) -> bytes:
    return chunk(b"cICP", bytes((primaries, curve, matrix, full)))


def gama(exponent: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(100_000 * exponent)))


def chrm(*white_red_green_blue: float) -> bytes:
    numbers = (round(100_000 * each) for each in white_red_green_blue)
    return chunk(b"cHRM", struct.pack(">8I", *numbers))


def clli(nits: float) -> bytes:
    return chunk(b"cLLI", struct.pack(">II", round(10_000 * nits), 0))


def mdcv(nits: float) -> bytes:
    corners = (35_400, 14_600, 8_500, 39_850, 6_550, 2_300, 15_635, 16_450)
    return chunk(b"mDCV", struct.pack(">8HII", *corners, round(10_000 * nits), 1))


def png(image: Image.Image, *chunks: bytes) -> bytes:
    """Return a PNG with these chunks in front of its pixels."""
    data = saved(image, "PNG")
    return data[:_BEHIND_HEADER] + b"".join(chunks) + data[_BEHIND_HEADER:]


def avif(
    image: Image.Image,
    primaries: int,
    curve: int,
    *,
    peak: int | None = None,
    profile: bytes | None = None,
) -> bytes:
    """Return an AVIF with these numbers; the `peak` in nits takes the place of a profile."""
    told = _PLACE if peak is not None else profile
    options = {"icc_profile": told} if told else {}
    data = saved(image, "AVIF", quality=100, subsampling="4:4:4", speed=9, **options)
    if peak is not None:
        brightest = box(b"clli", struct.pack(">HHI", peak, 0, 0))
        data = _exchanged(data, box(b"colr", b"prof" + _PLACE), brightest)
    at = data.index(b"colrnclx") + 8
    assert data.count(b"colrnclx") == 1
    return data[:at] + struct.pack(">HH", primaries, curve) + data[at + 4 :]


def heic(image: Image.Image, primaries: int, curve: int) -> bytes:
    return saved(
        image,
        "HEIF",
        quality=100,
        chroma=444,
        color_primaries=primaries,
        transfer_characteristics=curve,
        matrix_coefficients=6,
    )


#: So many bytes of a profile make a box that is long enough for that of the brightest pixel.
_PLACE = bytes(4)


def _exchanged(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    assert len(old) == len(new)
    return data.replace(old, new)
