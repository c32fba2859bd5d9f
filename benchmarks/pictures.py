"""Photographs for benchmarks: distinct crops of the real ones, at a wanted size."""

import io
import random
from collections.abc import Iterator

from PIL import Image

from tests.support.photographs import photograph

#: Colourful scenes of the test dependencies; line art would compress too well.
_SCENES = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower", "grace_hopper", "retina")


def photographs(count: int, *, width: int, height: int, quality: int = 88) -> Iterator[bytes]:
    """Yield `count` different JPEGs, the same ones each time."""
    chance = random.Random(7)  # the same each time  # nosec B311
    scenes = []
    for name in _SCENES:
        with Image.open(io.BytesIO(photograph(name).data)) as opened:
            scenes.append(opened.convert("RGB"))
    for index in range(count):
        scene = scenes[index % len(scenes)]
        share = chance.uniform(0.6, 1.0)
        w, h = round(scene.width * share), round(scene.height * share)
        x, y = chance.randint(0, scene.width - w), chance.randint(0, scene.height - h)
        picture = scene.crop((x, y, x + w, y + h)).resize((width, height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        yield buffer.getvalue()


def of_bytes(size: int) -> bytes:
    """Return a photograph of about `size` bytes."""
    with Image.open(io.BytesIO(photograph("china").data)) as opened:
        scene = opened.convert("RGB")
    for width in range(1200, 8000, 200):
        buffer = io.BytesIO()
        scene.resize((width, width * 2 // 3), Image.Resampling.BICUBIC).save(
            buffer, "JPEG", quality=97
        )
        if buffer.tell() >= size:
            return buffer.getvalue()
    raise ValueError(f"no photograph of {size} bytes")
