"""The one colour of a PNG that is transparent, compared at the file's own depth.

Pillow scales samples to 8 bits and leaves the colour as it stands in the file.
"""

import io
from typing import Any, Final

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

#: Where a PNG's header tells the bits of a sample.
_DEPTH: Final = 24
_WIDE: Final = 16
#: Rows that are compared at once, which takes little memory beside the picture.
_ROWS: Final = 256
_WHITE: Final = (255, 255, 255)


def cut_out(image: Image.Image, data: bytes) -> Image.Image:
    """Return the loaded PNG with white, or a fitting ``transparency``, where it is transparent."""
    told: Any = image.info["transparency"]
    depth = data[_DEPTH]
    if image.mode == "I;16":
        return _grey_16(image, told)
    if image.mode == "RGB" and depth == _WIDE:
        return _colours_16(image, data, told)
    # What does not fit into a sample counts without its upper bits, as in libpng.
    most = (1 << depth) - 1
    if image.mode == "L":
        image.info["transparency"] = (told & most) * 255 // most
    elif image.mode == "RGB":
        image.info["transparency"] = tuple(each & most for each in told)
    return image


def _grey_16(image: Image.Image, told: int) -> Image.Image:
    samples = np.array(image)
    samples[samples == told] = np.iinfo(np.uint16).max
    return Image.fromarray(samples)


def _colours_16(image: Image.Image, data: bytes, told: tuple[int, int, int]) -> Image.Image:
    """Pillow keeps the upper byte of each sample; decoded once more, the lower ones tell."""
    del image.info["transparency"]
    with PngImageFile(io.BytesIO(data)) as lower:
        # Read as if the lower byte came last, and the last one is what Pillow keeps.
        lower.tile = [each._replace(args="RGB;16L") for each in lower.tile]
        lower.load()
        high = np.array([each >> 8 for each in told])
        low = np.array([each & 255 for each in told])
        for top in range(0, image.height, _ROWS):
            box = (0, top, image.width, min(top + _ROWS, image.height))
            same = np.asarray(image.crop(box)) == high
            same &= np.asarray(lower.crop(box)) == low
            image.paste(_WHITE, box, Image.fromarray(same.all(axis=2)))
    return image
