"""Any picture mode to 8-bit RGB or grey, the way a person would see it on white paper."""

import numpy as np
from PIL import Image, ImageCms

_WITH_ALPHA = {"RGBA", "LA", "PA", "RGBa"}


def to_8_bits(image: Image.Image) -> Image.Image:
    """Return the loaded `image` as RGB, CMYK, or L if it has no colours: alpha on white.

    Grey stays grey because a large picture in RGB takes four times the memory; CMYK stays so
    because what it looks like is its profile's to say.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        return _from_16_bits(image)
    if mode == "LAB":
        return _from_lab(image)
    if mode in _WITH_ALPHA or "transparency" in image.info:
        return _on_white(image)
    if mode == "1":
        return image.convert("L")
    return image if mode in {"RGB", "L", "CMYK"} else image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion to 8 bits clips: everything above 255 would be white.
    return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # only in-place conversion returns None
    return converted


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")  # a copy of a large one is much
    paper = Image.new("RGB", rgba.size, (255, 255, 255))
    paper.paste(rgba, mask=rgba)
    return paper
