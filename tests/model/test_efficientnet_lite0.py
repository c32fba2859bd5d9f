"""EfficientNet-Lite0 against the network that its weights were made for, and what it knows."""

import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from deeplens_streams.config import Settings
from deeplens_streams.errors import WeightsUnavailable
from deeplens_streams.features.engines.torch_engine import TorchEngine
from deeplens_streams.features.models import (
    EFFICIENTNET_LITE0,
    RESNET50,
)
from deeplens_streams.features.weights import check_weights, find_weights
from deeplens_streams.imaging.decode import decode
from tests.support.photographs import photograph, photographs

#: Photographs of which nobody doubts what they show, and ImageNet's classes for it.
CLASSES = {
    "camera": {872},  # tripod
    "chelsea": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "china": {698},  # palace
    "coffee": {504, 967, 968},  # coffee mug, espresso, cup
    "flower": {985},  # daisy
    "motorcycle_left": {665, 670},  # moped, motor scooter
    "rocket": {657, 744, 812},  # missile, projectile, space shuttle
}


@pytest.fixture(scope="module")
def weights() -> Path:
    path = find_weights(Settings(), EFFICIENTNET_LITE0)
    assert path is not None
    return path


@pytest.fixture(scope="module")
def ours(weights: Path) -> TorchEngine:
    return TorchEngine(EFFICIENTNET_LITE0, weights)


@pytest.fixture(scope="module")
def theirs(weights: Path) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is of 2020
        from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415 -- takes seconds

        model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.stack([pixels_of(each.data) for each in photographs()[::3]])


def pixels_of(picture: bytes) -> np.ndarray:
    return decode(picture, EFFICIENTNET_LITE0, max_pixels=100_000_000).pixels


def normalised(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_the_weights_are_those_that_the_row_names(weights: Path) -> None:
    check_weights(weights, EFFICIENTNET_LITE0.weights)


@torch.inference_mode()
def test_vectors_are_the_pooled_activations_of_their_network(
    ours: TorchEngine, theirs: nn.Module, pixels: np.ndarray
) -> None:
    activations = cast(Any, theirs).extract_features(normalised(pixels)).mean(dim=(2, 3))
    expected = nn.functional.normalize(activations).numpy()
    found = ours(pixels)
    assert found.shape == (len(pixels), EFFICIENTNET_LITE0.dimension)
    assert found == pytest.approx(expected, abs=1e-4)
    assert (found * expected).sum(axis=1).min() > 0.99999


@torch.inference_mode()
def test_unmistakable_photographs_are_named(ours: TorchEngine, weights: Path) -> None:
    """The rest of the state dict, which vectors leave out, says what a vector stands for."""
    state = torch.load(weights, weights_only=True)
    vectors = ours(np.stack([pixels_of(photograph(name).data) for name in CLASSES]))
    # A vector's length is lost; the biases are left out, since they would outweigh the rest.
    named = (torch.from_numpy(vectors) @ state["_fc.weight"].T).argmax(dim=1).tolist()
    wrong = {
        name: got
        for got, (name, right) in zip(named, CLASSES.items(), strict=True)
        if got not in right
    }
    assert not wrong


def test_different_pictures_are_different(ours: TorchEngine, pixels: np.ndarray) -> None:
    vectors = ours(pixels)
    scores = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    assert float(np.median(scores)) < 0.4


def test_other_weights_are_one_sentence(weights: Path, tmp_path: Path) -> None:
    cut, foreign = tmp_path / "cut.pth", tmp_path / "foreign.pth"
    cut.write_bytes(weights.read_bytes()[:100_000])
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, foreign)
    for path in (cut, foreign):
        with pytest.raises(WeightsUnavailable, match="holds no EfficientNet-Lite0 weights"):
            TorchEngine(EFFICIENTNET_LITE0, path)
    with pytest.raises(WeightsUnavailable, match="holds no ResNet50 weights"):
        TorchEngine(RESNET50, weights)
