"""Pictures made in tests, and what the product makes of them."""

import io

import numpy as np
from PIL import Image

from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.imaging.decode import decode
from deeplens_streams.imaging.header import inspect

LIMIT = 100_000_000


def quadrants(size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Red, green, blue and white quarters: every turn and every colour mistake shows."""
    image = Image.new("RGB", size, "white")
    width, height = size[0] // 2, size[1] // 2
    image.paste("red", (0, 0, width, height))
    image.paste("lime", (width, 0, size[0], height))
    image.paste("blue", (0, height, width, size[1]))
    return image


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return decode(data, UNTRAINED, max_pixels=LIMIT).pixels


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def sizes(data: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size that the header tells and the size that decoding finds."""
    header = inspect(io.BytesIO(data), max_pixels=LIMIT)
    found = decode(data, UNTRAINED, max_pixels=LIMIT)
    return (header.width, header.height), (found.width, found.height)
