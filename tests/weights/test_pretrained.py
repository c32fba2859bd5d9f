"""What only trained weights can show; skipped where there are none on this machine."""

from pathlib import Path

import numpy as np
import pytest

from deeplens_streams.config import load_settings
from deeplens_streams.features.base import Seed
from deeplens_streams.features.engines import open_engine
from deeplens_streams.features.engines.torch_engine import TorchEngine
from deeplens_streams.features.models import choose_model
from deeplens_streams.features.weights import find_weights
from deeplens_streams.imaging.decode import decode
from tests.support.photographs import cropped_copy, photographs


@pytest.fixture(scope="module")
def weights() -> Path:
    settings = load_settings()
    model = choose_model(settings)
    if isinstance(model.weights, Seed):
        pytest.skip(f"{model.name} is asked for")
    found = find_weights(settings, model)
    if found is None:
        pytest.skip(
            "there are no weights on this machine; "
            "`python -m deeplens_streams.features.weights` downloads them"
        )
    return found


def test_every_copy_finds_its_original_first(weights: Path) -> None:
    model = choose_model(load_settings())
    engine = open_engine(load_settings(), model, weights)

    def vectors(pictures: list[bytes]) -> np.ndarray:
        pixels = [decode(each, model, max_pixels=100_000_000).pixels for each in pictures]
        return np.concatenate(
            [engine(np.stack(pixels[at : at + 8])) for at in range(0, len(pixels), 8)]
        )

    originals = [each.data for each in photographs()]
    scores = vectors([cropped_copy(each) for each in originals]) @ vectors(originals).T
    wrong = [
        photographs()[each].name for each, hit in enumerate(scores.argmax(axis=1)) if each != hit
    ]
    assert wrong == []


def test_the_engine_is_as_good_as_torch_in_float32(weights: Path) -> None:
    model = choose_model(load_settings())
    pixels = np.stack(
        [decode(each.data, model, max_pixels=100_000_000).pixels for each in photographs()[:16]]
    )
    exact = TorchEngine(model, weights)(pixels)
    fast = open_engine(load_settings(), model, weights)(pixels)
    assert (exact * fast).sum(axis=1).min() >= 0.999
