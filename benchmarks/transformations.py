"""What people and programs do to a picture before they look for it, and the pictures themselves."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from tests.support.photographs import photographs

#: The side of a tile in pixels.
TILE = 256
#: Standard deviation of grey levels below which a tile shows nothing: sky, or a black margin.
_EMPTY = 10.0


@dataclass(frozen=True)
class Picture:
    """A picture that is to be found again."""

    name: str
    image: Image.Image


def whole_photographs() -> list[Picture]:
    """Return each photograph of the test dependencies."""
    found = []
    for each in photographs():
        with Image.open(each.path) as opened:
            # White behind what is transparent, as the product does it.
            rgba = opened.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        found.append(Picture(each.name, Image.alpha_composite(white, rgba).convert("RGB")))
    return found


def tiles() -> list[Picture]:
    """Return tiles that do not overlap of those that hold four or more, and the others whole.

    Tiles of one photograph look alike, so these are harder to tell apart than photographs are.
    """
    found = []
    for whole in whole_photographs():
        across, down = whole.image.width // TILE, whole.image.height // TILE
        if across < 2 or down < 2:
            found.append(whole)
            continue
        for number in range(across * down):
            x, y = number % across * TILE, number // across * TILE
            tile = whole.image.crop((x, y, x + TILE, y + TILE))
            if np.asarray(tile.convert("L")).std() >= _EMPTY:
                found.append(Picture(f"{whole.name}-{number}", tile))
    return found


def as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def as_jpeg(image: Image.Image, quality: int = 92) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _middle(share: float) -> Callable[[Image.Image], bytes]:
    """Return what cuts out the middle: `share` of each side."""

    def crop(image: Image.Image) -> bytes:
        wide, high = round(image.width * share), round(image.height * share)
        x, y = (image.width - wide) // 2, (image.height - high) // 2
        return as_jpeg(image.crop((x, y, x + wide, y + high)))

    return crop


def _small(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((64, 64), Image.Resampling.LANCZOS)
    return as_jpeg(small)


def _blurred(image: Image.Image) -> bytes:
    return as_jpeg(image.filter(ImageFilter.GaussianBlur(max(image.size) / 150)))


def _squashed(image: Image.Image) -> bytes:
    return as_jpeg(image.resize((max(1, round(image.width * 0.7)), image.height)))


#: Each makes a file of a picture; a share is of each side.
TRANSFORMATIONS: dict[str, Callable[[Image.Image], bytes]] = {
    "recompressed (quality 30)": lambda image: as_jpeg(image, quality=30),
    "middle 90 %": _middle(0.9),
    "middle 50 %": _middle(0.5),
    "middle 33 %": _middle(1 / 3),
    "mirrored": lambda image: as_jpeg(ImageOps.mirror(image)),
    "turned 90°": lambda image: as_jpeg(image.transpose(Image.Transpose.ROTATE_90)),
    "turned 10°": lambda image: as_jpeg(image.rotate(10, Image.Resampling.BICUBIC)),
    "grey": lambda image: as_jpeg(image.convert("L")),
    "brighter (1.5 times)": lambda image: as_jpeg(ImageEnhance.Brightness(image).enhance(1.5)),
    "64 px": _small,
    "blurred": _blurred,
    "squashed to 70 % width": _squashed,
}
