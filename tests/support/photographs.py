"""Real pictures for every test: those that the test dependencies carry in their wheels.

All are distinct: of stereo pairs and copies only one is taken, and no synthetic pattern
that a crop of another would match.
"""

import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from PIL import Image

_SOURCES: dict[tuple[str, str], tuple[str, ...]] = {
    ("skimage", "data"): (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "cell.png",
        "chelsea.png",
        "clock_motion.png",
        "coffee.png",
        "coins.png",
        "color.png",
        "grass.png",
        "gravel.png",
        "horse.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "logo.png",
        "microaneurysms.png",
        "moon.png",
        "motorcycle_left.png",
        "page.png",
        "phantom.png",
        "retina.jpg",
        "rocket.jpg",
        "text.png",
    ),
    ("sklearn", "datasets/images"): ("china.jpg", "flower.jpg"),
    ("matplotlib", "mpl-data/sample_data"): (
        "Minduka_Present_Blue_Pack.png",
        "grace_hopper.jpg",
        "logo2.png",
    ),
}


class Photograph(NamedTuple):
    """One picture; `name` is its file name without the suffix."""

    name: str
    path: Path

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()


@cache
def photographs() -> tuple[Photograph, ...]:
    """Return every picture that is installed, in a fixed order."""
    found = []
    for (package, folder), names in _SOURCES.items():
        spec = find_spec(package)
        assert spec is not None, f"the test dependency {package} is not installed"
        assert spec.origin is not None
        paths = (Path(spec.origin).parent / folder / name for name in names)
        found += [Photograph(path.stem, path) for path in paths if path.is_file()]
    return tuple(found)


def photograph(name: str) -> Photograph:
    """Return one picture by name: ``chelsea``, ``coffee``, ``china`` …"""
    return next(each for each in photographs() if each.name == name)


def as_jpeg(data: bytes, *, pixels: int | None = None, quality: int = 90) -> bytes:
    """Return the picture as a JPEG, rescaled to about `pixels` if given."""
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    if pixels is not None:
        scale = (pixels / (image.width * image.height)) ** 0.5
        image = image.resize((round(image.width * scale), round(image.height * scale)))
    return _jpeg(image, quality)


def cropped_copy(data: bytes) -> bytes:
    """Return a copy as people make them: cropped by about a tenth, smaller, recompressed."""
    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    box = (round(width * 0.06), round(height * 0.05), round(width * 0.95), round(height * 0.94))
    cropped = image.crop(box)
    smaller = (round(cropped.width * 0.9), round(cropped.height * 0.9))
    return _jpeg(cropped.resize(smaller, Image.Resampling.LANCZOS), 70)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
