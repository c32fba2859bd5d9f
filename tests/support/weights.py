"""The trained weights that the packages of this project carry."""

from pathlib import Path

from deeplens_streams.config import Settings
from deeplens_streams.features.models import EFFICIENTNET_LITE0
from deeplens_streams.features.weights import find_weights


def efficientnet_lite0_weights() -> Path:
    path = find_weights(Settings(), EFFICIENTNET_LITE0)
    assert path is not None
    return path
