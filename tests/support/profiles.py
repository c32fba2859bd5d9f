"""ICC profiles made in tests: three primaries, a white point and a curve, or one curve of grey."""

import io
import struct
from functools import cache

import numpy as np
from PIL import Image, ImageCms

Chromaticities = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]

SRGB: Chromaticities = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3: Chromaticities = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
ADOBE: Chromaticities = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
PROPHOTO: Chromaticities = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
#: Parameters of ICC's curve of type 3.
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_PCS = (0.9642, 1.0, 0.8249)


def rgb_profile(
    primaries: Chromaticities,
    white: tuple[float, float] = D65,
    curve: float | tuple[float, ...] = SRGB_CURVE,
    *,
    name: str = "made in a test",
) -> bytes:
    """Return a profile of version 4 for RGB; `curve` is a gamma or the parameters of type 3."""
    colorants = to_pcs(primaries, white)
    tags = {f"{channel}XYZ": _xyz(colorants[:, at]) for at, channel in enumerate("rgb")}
    tags |= {f"{channel}TRC": _para(curve) for channel in "rgb"}
    return _profile(b"RGB ", {"desc": _text(name), "wtpt": _xyz(_PCS), **tags})


def grey_profile(curve: float | tuple[float, ...]) -> bytes:
    tags = {"desc": _text("grey"), "wtpt": _xyz(_PCS), "kTRC": _para(curve)}
    return _profile(b"GRAY", tags)


def to_pcs(primaries: Chromaticities, white: tuple[float, float]) -> np.ndarray:
    """Return (3, 3): from linear RGB to XYZ as seen under D50."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    point = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    to_xyz = columns * np.linalg.solve(columns, point)
    gains = (_BRADFORD @ np.array(_PCS)) / (_BRADFORD @ point)
    return np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ to_xyz


def encoded(
    srgb: np.ndarray, primaries: Chromaticities, white: tuple[float, float], gamma: float | None
) -> np.ndarray:
    """Return uint8 samples of the same colours in another space; no gamma is sRGB's curve."""
    linear = _linear(srgb.astype(float) / 255)
    there = np.linalg.inv(to_pcs(primaries, white)) @ to_pcs(SRGB, D65)
    moved = np.clip(linear @ there.T, 0, 1)
    coded = _coded(moved) if gamma is None else moved ** (1 / gamma)
    return np.round(coded * 255).astype(np.uint8)


def _linear(coded: np.ndarray) -> np.ndarray:
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def _coded(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def _profile(space: bytes, tags: dict[str, bytes]) -> bytes:
    at, entries, bodies = 128 + 4 + 12 * len(tags), b"", b""
    for name, body in tags.items():
        entries += struct.pack(">4sII", name.encode(), at + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(bodies), b"", 0x04300000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _fixed(_PCS)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + bodies


def _text(text: str) -> bytes:
    coded = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">4xII2s2sII", 1, 12, b"en", b"US", len(coded), 28) + coded


def _xyz(values: np.ndarray | tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)


def _para(curve: float | tuple[float, ...]) -> bytes:
    values = curve if isinstance(curve, tuple) else (curve,)
    return b"para" + struct.pack(">4xHxx", 3 if isinstance(curve, tuple) else 0) + _fixed(values)


def _fixed(values: np.ndarray | tuple[float, ...]) -> bytes:
    return b"".join(struct.pack(">i", round(float(each) * 65536)) for each in values)


def converted(image: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture in sRGB in a profile's colours."""
    found = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(profile))
    )
    assert found is not None
    return found


@cache
def press_profile() -> bytes:
    """Return a press's profile for CMYK, with tables for each intent; libvips brings it along."""
    # Whoever needs no ink does without its libraries.
    import pyvips  # noqa: PLC0415

    white = pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb")
    found: bytes = white.icc_export(output_profile="cmyk").get("icc-profile-data")
    return found


def in_ink(image: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture in sRGB as a press with this profile prints it, made as Photoshop does."""
    ink = ImageCms.profileToProfile(
        image,
        ImageCms.createProfile("sRGB"),
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        "CMYK",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert ink is not None
    del ink.info["icc_profile"]  # saving is to say whether it goes along
    return ink
