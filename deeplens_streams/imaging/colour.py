"""One rule for colours: whatever a file says of them, what is looked at is sRGB.

Pixels are converted after they were resized, where they are few: resizing in the file's own
colours and converting is within half a level of converting and resizing. Pictures that say
nothing, or sRGB, are not touched.
"""

from collections.abc import Callable

from PIL import Image

from deeplens_streams.imaging.icc import IccTransform, icc_transform

#: From a resized picture, in its file's own colours, to the same in sRGB.
ToSrgb = Callable[[Image.Image], Image.Image]

_GREY = {"1", "L", "LA", "La", "I", "F"}


def to_srgb_of(image: Image.Image) -> ToSrgb:
    """Return what makes RGB in sRGB of this picture's pixels, once they are resized.

    Parameters
    ----------
    image : open; it need not be loaded.
    """
    profile = image.info.get("icc_profile")
    transform = icc_transform(profile) if isinstance(profile, bytes) else None
    if transform is None or not _fits(transform, image.mode):
        return _as_it_is
    return _through(transform)


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
