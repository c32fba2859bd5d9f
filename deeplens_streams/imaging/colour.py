"""One rule for colours: whatever a file says of them, what is looked at is sRGB.

A file may say several things of its colours. The first of these that can be used counts:

- PNG: cICP, an ICC profile, sRGB, gAMA with or without cHRM;
- AVIF and HEIC: an ICC profile, nclx;
- all others: an ICC profile.

Pixels are converted after they were resized, where they are few: resizing in the file's own
colours and converting is within half a level of converting and resizing. Pictures that say
nothing, or sRGB, are not touched.
"""

from collections.abc import Callable

from PIL import Image

from deeplens_streams.imaging.heif_space import nclx_space
from deeplens_streams.imaging.icc import IccTransform, icc_transform
from deeplens_streams.imaging.png_space import cicp_space, gamma_space
from deeplens_streams.imaging.told_space import ToldSpace

#: From a resized picture, in its file's own colours, to the same in sRGB.
ToSrgb = Callable[[Image.Image], Image.Image]

_GREY = {"1", "L", "LA", "La", "I", "F"}
_PNG = "PNG"
_BOXED = {"AVIF", "HEIF"}


def to_srgb_of(image: Image.Image, data: bytes) -> ToSrgb:
    """Return what makes RGB in sRGB of this picture's pixels, once they are resized.

    Parameters
    ----------
    image : open; it need not be loaded.
    data : the file that it came from.
    """
    png = image.format == _PNG
    if png and (told := cicp_space(image.info)):
        return _by_numbers(told)
    profile = image.info.get("icc_profile")
    transform = icc_transform(profile) if isinstance(profile, bytes) else None
    if transform and _fits(transform, image.mode):
        return _as_it_is if transform.changes_nothing else _through(transform)
    if png:
        return _by_numbers(gamma_space(image.info))
    if image.format in _BOXED:
        return _by_numbers(nclx_space(memoryview(data)))
    return _as_it_is


def _by_numbers(told: ToldSpace | None) -> ToSrgb:
    return _as_it_is if told is None or told.is_srgb else told.to_srgb


def _fits(transform: IccTransform, mode: str) -> bool:
    """Tell whether the profile is for such pixels: grey ones may have one for colours."""
    grey = mode in _GREY or mode.startswith("I;16")
    return {"L": grey, "CMYK": mode == "CMYK", "RGB": mode != "CMYK"}[transform.mode]


def _through(transform: IccTransform) -> ToSrgb:
    def converted(small: Image.Image) -> Image.Image:
        # Grey with transparency is RGB since it was laid on paper.
        return transform.to_srgb(
            small if small.mode == transform.mode else small.convert(transform.mode)
        )

    return converted


def _as_it_is(small: Image.Image) -> Image.Image:
    return small.convert("RGB")
