"""What a person sees of a trained model: a copy finds its original, and nothing else is like it."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from deeplens_streams.cli.demo import SAMPLES, altered_copy
from deeplens_streams.config import Settings
from deeplens_streams.features.engines import open_engine
from deeplens_streams.features.models import EFFICIENTNET_LITE0
from deeplens_streams.features.weights import have_weights
from deeplens_streams.imaging.decode import decode
from tests.support.photographs import cropped_copy, photographs

Vectors = Callable[[Sequence[bytes]], np.ndarray]

#: Measured: another photograph has 0.55 at the most, another sample 0.42.
DIFFERENT = 0.8


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    model = EFFICIENTNET_LITE0
    engine = open_engine(Settings(), model, have_weights(Settings(), model))

    def of(pictures: Sequence[bytes]) -> np.ndarray:
        pixels = [decode(each, model, max_pixels=100_000_000).pixels for each in pictures]
        return np.concatenate(
            [engine(np.stack(pixels[at : at + 8])) for at in range(0, len(pixels), 8)]
        )

    return of


def require_own_first(names: Sequence[str], scores: np.ndarray) -> None:
    """Each row is a copy, each column an original, in the same order."""
    wrong = [names[at] for at, first in enumerate(scores.argmax(axis=1)) if at != first]
    assert not wrong
    others = scores[~np.eye(len(names), dtype=bool)]
    assert others.max() < DIFFERENT


def test_a_copy_of_a_photograph_finds_it_and_no_other_is_like_it(vectors: Vectors) -> None:
    originals = [each.data for each in photographs()]
    scores = vectors([cropped_copy(each) for each in originals]) @ vectors(originals).T
    require_own_first([each.name for each in photographs()], scores)


def test_the_demonstration_means_something(vectors: Vectors) -> None:
    samples = sorted(SAMPLES.glob("*.jpg"))
    assert len(samples) == 12
    originals = [each.read_bytes() for each in samples]
    scores = vectors([altered_copy(each) for each in samples]) @ vectors(originals).T
    require_own_first([each.name for each in samples], scores)
