"""Colours by ICC profile: judged by what a profile does, and converted as browsers convert."""

import hashlib
import io
from collections import OrderedDict
from threading import Lock
from typing import Final

import numpy as np
from PIL import Image, ImageCms

#: Bytes of a profile, at the most: those of printing presses have up to three million.
LARGEST_PROFILE: Final = 4 * 1024 * 1024
#: Profiles that are remembered: one of a press takes about half a megabyte.
_REMEMBERED: Final = 16
#: Levels of 255 by which no colour may be off for a profile to be sRGB in effect.
_TOLERANCE: Final = 2
#: Pillow's mode of the pixels that a profile of this colour space is for.
_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
#: The tables that a profile has for pictures.
_INTENT: Final = ImageCms.Intent.PERCEPTUAL
#: Ink comes back the way that it went: this is how Photoshop makes it, if it is not told
#: otherwise. By perceptual tables photographs are farther from what they were made of.
_INTENT_OF_INK: Final = ImageCms.Intent.RELATIVE_COLORIMETRIC
#: A press's black is black. Chromium, which is matched to about two levels in all else,
#: compensates nothing and shows it as grey.
_FLAGS: Final = ImageCms.Flags.BLACKPOINTCOMPENSATION


class IccTransform:
    """A profile's way to sRGB.

    Attributes
    ----------
    mode : of the pixels that it takes: ``RGB``, ``L`` or ``CMYK``.
    changes_nothing : whether such pixels are sRGB already.
    """

    def __init__(self, mode: str, transform: ImageCms.ImageCmsTransform) -> None:
        self.mode = mode
        self._transform = transform
        self.changes_nothing = _changes_nothing(self)

    def to_srgb(self, image: Image.Image) -> Image.Image:
        """Return an RGB picture of the same size; `image` is of this one's mode."""
        converted = self._transform.apply(image)
        assert converted is not None  # only in-place conversion returns None
        return converted


class _Remembered:
    """Transforms by their profile's digest, the last ones used: making one takes milliseconds."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._made: OrderedDict[bytes, IccTransform | None] = OrderedDict()

    def of(self, profile: bytes) -> IccTransform | None:
        digest = hashlib.sha256(profile).digest()
        with self._lock:
            if digest in self._made:
                self._made.move_to_end(digest)
                return self._made[digest]
        made = _made_of(profile)
        with self._lock:
            self._made[digest] = made
            while len(self._made) > _REMEMBERED:
                self._made.popitem(last=False)
        return made


_remembered = _Remembered()


def icc_transform(profile: bytes) -> IccTransform | None:
    """Return how pixels with this profile come to be sRGB.

    None where the profile is damaged, too large, or of a kind that says nothing of a picture's
    colours: it is as if there were none.
    """
    return _remembered.of(profile) if len(profile) <= LARGEST_PROFILE else None


def _made_of(data: bytes) -> IccTransform | None:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        mode = _MODES.get(profile.profile.xcolor_space.strip())
        if mode is None:
            return None
        intent = _INTENT_OF_INK if mode == "CMYK" else _INTENT
        return IccTransform(
            mode,
            ImageCms.buildTransform(
                profile, ImageCms.createProfile("sRGB"), mode, "RGB", intent, _FLAGS
            ),
        )
    except Exception:  # a damaged profile is no damage to the picture
        return None


def _changes_nothing(transform: IccTransform) -> bool:
    """Tell whether colours, sent through, come out as they were: a name proves nothing.

    Colours of all sorts show primaries and white point, greys the curve.
    """
    if transform.mode == "CMYK":
        return False
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    if transform.mode == "L":
        probe = Image.fromarray(greys[None, :, 0].copy())
    else:
        steps = np.linspace(0, 255, 6).astype(np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
        greys = np.concatenate([greys, colours])
        probe = Image.fromarray(greys[None])
    found = np.asarray(transform.to_srgb(probe))[0]
    return int(np.abs(found.astype(int) - greys).max()) <= _TOLERANCE
