"""The network against torchvision's own, the untrained numbers, and what it can be used for."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError, WeightsUnavailable
from deeplens_streams.features.base import Precision
from deeplens_streams.features.engines.torch_engine import TorchEngine, open_torch
from deeplens_streams.features.models import RESNET50, RESNET50_WEIGHTS, UNTRAINED
from deeplens_streams.imaging import decode as decoding
from deeplens_streams.imaging.decode import decode
from tests.support.photographs import as_jpeg, cropped_copy, photograph, photographs

LIMIT = 100_000_000


def pixels_of(pictures: Sequence[bytes]) -> np.ndarray:
    return np.stack([decode(each, UNTRAINED, max_pixels=LIMIT).pixels for each in pictures])


def vectors_of(network: TorchEngine, pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([network(pixels[at : at + 8]) for at in range(0, len(pixels), 8)])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


@pytest.fixture(scope="module")
def exact() -> TorchEngine:
    return TorchEngine(UNTRAINED, None)


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return [each.data for each in photographs()]


@pytest.fixture(scope="module")
def pixels(pictures: list[bytes]) -> np.ndarray:
    return pixels_of(pictures)


@pytest.fixture(scope="module")
def vectors(exact: TorchEngine, pixels: np.ndarray) -> np.ndarray:
    return vectors_of(exact, pixels)


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """torchvision's ResNet50 with batch norms that have something to fold."""
    from torchvision.models import resnet50  # noqa: PLC0415 -- takes seconds

    torch.manual_seed(5)
    model = resnet50()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            nn.init.normal_(layer.bias, std=0.2)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return model.eval()


@pytest.fixture(scope="module")
def weights_file(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(theirs.state_dict(), path)
    return path


def test_the_model_row_is_torchvisions() -> None:
    from torchvision.models import ResNet50_Weights  # noqa: PLC0415 -- takes seconds

    weights = ResNet50_Weights.DEFAULT
    transforms = weights.transforms()
    assert weights.name.replace("_", "-").lower() == RESNET50.version
    assert weights.url == RESNET50_WEIGHTS.url
    assert weights.url.endswith(f"-{RESNET50_WEIGHTS.sha256}.pth")
    assert transforms.resize_size == [RESNET50.resize_size]
    assert transforms.crop_size == [RESNET50.input_size]
    assert tuple(transforms.mean) == RESNET50.mean
    assert tuple(transforms.std) == RESNET50.std


@torch.inference_mode()
def test_vectors_are_those_of_torchvisions_model_and_transforms(
    theirs: nn.Module, weights_file: Path, pictures: list[bytes], pixels: np.ndarray
) -> None:
    """The exact way: decode all of it, their transforms, their network without its last layer."""
    from torchvision.models import ResNet50_Weights  # noqa: PLC0415 -- takes seconds

    transforms = ResNet50_Weights.DEFAULT.transforms()
    headless = nn.Sequential(*list(theirs.children())[:-1])
    chosen = [each for each, picture in enumerate(photographs()) if picture.name in _RGB]
    inputs = [Image.open(io.BytesIO(pictures[each])).convert("RGB") for each in chosen]
    expected = headless(torch.stack([transforms(each) for each in inputs])).flatten(1).numpy()
    ours = TorchEngine(RESNET50, weights_file)(pixels[chosen])
    assert ours.shape == (len(chosen), 2048)
    assert np.linalg.norm(ours, axis=1) == pytest.approx(1, abs=1e-5)
    assert cosines(ours, expected).min() > 0.99999


_RGB = {"chelsea", "coffee", "china", "rocket", "grace_hopper", "retina"}


def test_bfloat16_is_as_good_as_float32(pixels: np.ndarray, vectors: np.ndarray) -> None:
    fast = vectors_of(TorchEngine(UNTRAINED, None, precision="bf16"), pixels)
    assert cosines(fast, vectors).min() >= 0.999


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_jpegs_may_be_decoded_at_reduced_scale(
    precision: Precision, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large photographs, at the least reduced size that is accepted: the worst case."""
    side = 2 * decoding.DRAFT_MARGIN * RESNET50.resize_size + 4
    jpegs = []
    for name in sorted(_RGB):
        with Image.open(io.BytesIO(photograph(name).data)) as image:
            scale = side / min(image.size)
            pixels = round(image.width * scale * image.height * scale)
        jpegs.append(as_jpeg(photograph(name).data, pixels=pixels))
    reduced = pixels_of(jpegs)
    monkeypatch.setattr(decoding, "DRAFT_MARGIN", 1_000)
    whole = pixels_of(jpegs)
    assert (reduced != whole).any()
    network = TorchEngine(RESNET50, weights_file, precision=precision)
    exact = TorchEngine(RESNET50, weights_file)
    assert cosines(vectors_of(network, reduced), vectors_of(exact, whole)).min() >= 0.999


def test_the_untrained_numbers_are_pinned(exact: TorchEngine) -> None:
    """A change of the seed, the layers or the preprocessing is a change of the model."""
    vector = exact(pixels_of([photograph("china").data]))[0]
    assert vector[::205] == pytest.approx(CANONICAL, abs=1e-4)


CANONICAL = [0.00127, 0.0013, 0.04767, 0.0237, 0.02048, 0.01996, 0.02146, 0.0002, 0.02664, 0.05035]


def test_cropped_and_recompressed_copies_find_their_originals(
    exact: TorchEngine, pictures: list[bytes], vectors: np.ndarray
) -> None:
    copies = vectors_of(exact, pixels_of([cropped_copy(each) for each in pictures]))
    first_hits = (copies @ vectors.T).argmax(axis=1)
    found = int((first_hits == np.arange(len(pictures))).sum())
    assert len(pictures) >= 25
    assert found >= 0.7 * len(pictures)


def test_a_vector_does_not_depend_on_its_batch(
    exact: TorchEngine, pixels: np.ndarray, vectors: np.ndarray
) -> None:
    assert cosines(exact(pixels[:1]), vectors[:1]).min() > 0.99999


@pytest.mark.parametrize(
    "content",
    [b"", b"not a weights file", b"PK\x03\x04 a damaged archive"],
    ids=["empty", "text", "archive"],
)
def test_damaged_weights_are_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "resnet50.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsUnavailable, match="damaged or holds no ResNet50 weights"):
        TorchEngine(RESNET50, path)


def test_weights_of_another_network_are_refused(weights_file: Path, tmp_path: Path) -> None:
    state = torch.load(weights_file, weights_only=True)
    for name, changed in (
        ("missing", {key: value for key, value in state.items() if "layer4.2" not in key}),
        ("shape", state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}),
        ("other", {"weights": [1, 2, 3]}),
        ("list", [1, 2, 3]),
    ):
        path = tmp_path / name
        torch.save(changed, path)
        with pytest.raises(WeightsUnavailable):
            TorchEngine(RESNET50, path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_gpu_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match="finds no CUDA device; set it to auto or cpu"):
        open_torch(Settings(device="cuda"), UNTRAINED, None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_a_gpu_agrees_with_the_cpu(pixels: np.ndarray, vectors: np.ndarray) -> None:
    on_gpu = open_torch(Settings(device="cuda"), UNTRAINED, None)
    assert cosines(vectors_of(on_gpu, pixels), vectors).min() >= 0.999
