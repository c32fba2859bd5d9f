"""Copies of a photograph in other colours are the same picture to a trained network.

``pytest -s tests/model/test_colour_copies.py`` prints what docs/formats.md shows.
"""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from deeplens_streams.config import Settings
from deeplens_streams.features.engines import Engine, open_engine
from deeplens_streams.features.models import EFFICIENTNET_LITE0
from deeplens_streams.features.weights import have_weights
from deeplens_streams.imaging import decode
from deeplens_streams.imaging.colour import _as_it_is
from tests.support.photographs import photograph
from tests.support.pictures import LIMIT, saved
from tests.support.profiles import (
    ADOBE,
    D50,
    D65,
    P3,
    PROPHOTO,
    converted,
    in_ink,
    press_profile,
    rgb_profile,
)
from tests.support.told_colours import (
    TO_BT2020,
    TO_P3,
    WHITE,
    avif,
    cicp,
    levels,
    light,
    png,
    pq,
    srgb_samples,
)

NAMES = (
    *("astronaut", "chelsea", "china", "coffee", "flower", "grace_hopper"),
    *("motorcycle_left", "retina", "rocket"),
)
#: Mostly black sky. Noise of one level of 255 alone has a cosine of 0.994 there, where others have
#: 0.989 to 0.9996.
NIGHT = "rocket"
_IN_THE_DARK = 0.01
#: Nits of the highlights of a picture that goes beyond white.
_PEAK = 1000


@pytest.fixture(scope="module")
def engine() -> Engine:
    model = EFFICIENTNET_LITE0
    return open_engine(Settings(), model, have_weights(Settings(), model))


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    found = []
    for name in NAMES:
        with Image.open(photograph(name).path) as opened:
            found.append(opened.convert("RGB"))
        found[-1].thumbnail((640, 640))
    return found


def vectors(engine: Engine, files: list[bytes]) -> np.ndarray:
    pixels = [decode.decode(each, EFFICIENTNET_LITE0, max_pixels=LIMIT).pixels for each in files]
    return np.concatenate(
        [engine(np.stack(pixels[at : at + 8])) for at in range(0, len(pixels), 8)]
    )


def with_profile(profile: bytes) -> Callable[[Image.Image], bytes]:
    return lambda image: saved(converted(image, profile), "PNG", icc_profile=profile)


def ink(image: Image.Image) -> bytes:
    profile = press_profile()
    return saved(in_ink(image, profile), "TIFF", icc_profile=profile)


def in_p3(image: Image.Image) -> Image.Image:
    return Image.fromarray(levels(srgb_samples(light(np.asarray(image)) @ TO_P3.T)))


def brighter(image: Image.Image) -> Image.Image:
    """Return it in BT.2020 and PQ, its highlights up to the peak and all else as it was."""
    linear = light(np.asarray(image))
    rise = 1 + (_PEAK / WHITE - 1) * linear.max(axis=-1, keepdims=True) ** 3
    return Image.fromarray(levels(pq((WHITE * rise * linear @ TO_BT2020.T).clip(0))))


#: What is made of a photograph, and the least cosine of its vector with the photograph's.
COPIES: dict[str, tuple[Callable[[Image.Image], bytes], float]] = {
    "PNG in Adobe RGB": (with_profile(rgb_profile(ADOBE, D65, 2.2)), 0.995),
    "PNG in Display P3": (with_profile(rgb_profile(P3)), 0.995),
    "PNG in ProPhoto": (with_profile(rgb_profile(PROPHOTO, D50, 1.8)), 0.995),
    "PNG in Display P3, by cICP": (lambda image: png(in_p3(image), cicp(12, 13)), 0.995),
    "AVIF in Display P3, by nclx": (lambda image: avif(in_p3(image), 12, 13), 0.995),
    # Ink has fewer colours, and tables for its way there and back.
    "TIFF in a press's ink": (ink, 0.975),
    "PNG in PQ": (lambda image: png(brighter(image), cicp(9, 16)), 0.95),
    "AVIF in PQ": (lambda image: avif(brighter(image), 9, 16), 0.95),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_in_other_colours_is_the_same_picture(
    name: str, engine: Engine, originals: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, floor = COPIES[name]
    own = vectors(engine, [saved(each, "PNG") for each in originals])
    copies = [made(each) for each in originals]
    scores = (vectors(engine, copies) * own).sum(axis=1)
    monkeypatch.setattr(decode, "to_srgb_of", lambda *_: _as_it_is)
    untold = (vectors(engine, copies) * own).sum(axis=1)
    row = [np.median(scores), scores.min(), np.median(untold), untold.min()]
    print(f"| {name} | " + " | ".join(f"{each:.4f}" for each in row) + " |")  # noqa: T201
    floors = np.array([floor - _IN_THE_DARK * (each == NIGHT) for each in NAMES])
    assert not {n: score for n, score in zip(NAMES, scores - floors, strict=True) if score < 0}
    assert np.median(scores) > np.median(untold)
