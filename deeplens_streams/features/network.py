"""ResNet50 up to its pooled 2048 numbers, for inference only.

The layers carry torchvision's names and a test holds the outputs against torchvision's own
model. They stand here because importing torchvision takes longer than importing torch and
loading the weights together, and because batch norms are folded while the layers are built.
Importing this module imports torch.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from deeplens_streams.errors import ConfigurationError, WeightsUnavailable
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.features.models import UNTRAINED_SEED

#: Blocks, width and stride of torchvision's ``layer1`` to ``layer4``.
_STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
_EXPANSION = 4
_BATCH_NORM_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution and the batch norm behind it, by torchvision's names."""

    convolution: str
    batch_norm: str
    channels_in: int
    channels_out: int
    kernel: int
    stride: int = 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.channels_out, self.channels_in, self.kernel, self.kernel


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution with its batch norm folded in; `weight` is channels-last."""

    weight: Tensor
    bias: Tensor
    stride: int

    def __call__(self, x: Tensor) -> Tensor:
        padding = self.weight.shape[-1] // 2
        return functional.conv2d(x, self.weight, self.bias, self.stride, padding)


def layers() -> Iterator[Layer]:
    """Yield every layer, from the input to the last."""
    yield Layer("conv1", "bn1", 3, 64, 7, 2)
    channels = 64
    for stage, (blocks, width, stride) in enumerate(_STAGES, start=1):
        for block in range(blocks):
            at, step = f"layer{stage}.{block}", stride if block == 0 else 1
            wide = width * _EXPANSION
            yield Layer(f"{at}.conv1", f"{at}.bn1", channels, width, 1)
            yield Layer(f"{at}.conv2", f"{at}.bn2", width, width, 3, step)
            yield Layer(f"{at}.conv3", f"{at}.bn3", width, wide, 1)
            if block == 0:
                yield Layer(f"{at}.downsample.0", f"{at}.downsample.1", channels, wide, 1, step)
            channels = wide


class Network:
    """A loaded model: uint8 pixels in, normalised vectors out.

    Several threads may call it at once; on the CPU each call keeps to its own thread.

    Raises
    ------
    WeightsUnavailable
        The file holds no weights of this network.
    ConfigurationError
        The device is not there.
    """

    def __init__(
        self,
        model: ModelSpec,
        weights: Path | None,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.device = _choose_device(device)
        self.dtype = dtype or _choose_dtype(self.device)
        make = _untrained() if weights is None else _from_file(weights)
        built = {layer.convolution: self._place(make(layer), layer.stride) for layer in layers()}
        self._stem = built["conv1"]
        self._blocks = [
            (
                built[f"{at}.conv1"],
                built[f"{at}.conv2"],
                built[f"{at}.conv3"],
                built.get(f"{at}.downsample.0"),
            )
            for at in (
                f"layer{stage}.{block}"
                for stage, (blocks, _, _) in enumerate(_STAGES, start=1)
                for block in range(blocks)
            )
        ]
        scale = 1 / (255 * np.array(model.std, np.float32))
        shift = np.array(model.mean, np.float32) / np.array(model.std, np.float32)
        self._scale = torch.from_numpy(scale).view(1, 3, 1, 1).to(self.device)
        self._shift = torch.from_numpy(shift).view(1, 3, 1, 1).to(self.device)
        self._side = model.input_size

    @torch.inference_mode()
    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the vectors of a batch.

        Parameters
        ----------
        pixels : (n, input_size, input_size, 3) uint8, RGB.

        Returns
        -------
        (n, 2048) float32, each row L2-normalised.
        """
        torch.set_num_threads(1)  # of this thread: OpenMP keeps it for each caller
        # Pixels lie channels-last already: a permuted view is all that the network wants.
        x = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
        x = x.mul_(self._scale).sub_(self._shift).to(self.dtype)
        x = functional.max_pool2d(functional.relu_(self._stem(x)), 3, 2, 1)
        for first, second, third, shortcut in self._blocks:
            y = third(functional.relu_(second(functional.relu_(first(x)))))
            x = functional.relu_(y.add_(x if shortcut is None else shortcut(x)))
        pooled = x.float().mean(dim=(2, 3))
        vectors: npt.NDArray[np.float32] = functional.normalize(pooled).cpu().numpy()
        return vectors

    def warm_up(self, sizes: tuple[int, ...]) -> None:
        """Run batches of these sizes: the first one of each size prepares its kernels."""
        for size in sizes:
            self(np.zeros((size, self._side, self._side, 3), np.uint8))

    def _place(self, folded: tuple[Tensor, Tensor], stride: int) -> Convolution:
        weight, bias = (each.to(self.device, self.dtype) for each in folded)
        return Convolution(weight.contiguous(memory_format=torch.channels_last), bias, stride)


Maker = Callable[[Layer], tuple[Tensor, Tensor]]


def _untrained() -> Maker:
    """Draw weights as torchvision does for an untrained network, but alike on every platform."""
    random = np.random.default_rng(UNTRAINED_SEED)

    def make(layer: Layer) -> tuple[Tensor, Tensor]:
        deviation = (2 / (layer.channels_out * layer.kernel**2)) ** 0.5
        drawn = random.standard_normal(layer.shape, dtype=np.float32) * np.float32(deviation)
        return torch.from_numpy(drawn), torch.zeros(layer.channels_out)

    return make


def _from_file(path: Path) -> Maker:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # pickle, zip and torch each have their own ways to fail
        raise _unusable(path) from error

    def make(layer: Layer) -> tuple[Tensor, Tensor]:
        try:
            return _fold(state, layer)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise _unusable(path) from error

    return make


def _fold(state: Mapping[str, Tensor], layer: Layer) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the convolution that does what it and its batch norm do."""
    norm = layer.batch_norm
    weight = state[f"{layer.convolution}.weight"].float().reshape(layer.shape)
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _BATCH_NORM_EPSILON).sqrt()
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    return weight * scale.view(-1, 1, 1, 1), bias


def _unusable(path: Path) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"{path} is damaged or holds no ResNet50 weights; delete it to have it downloaded again, "
        "or set DEEPLENS_WEIGHTS to a file of ResNet50 IMAGENET1K_V2 weights, or to untrained."
    )


def _choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigurationError(
            "DEEPLENS_DEVICE is cuda, and torch finds no CUDA device; set it to auto or cpu."
        )
    return torch.device("cuda")


def _choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, since emulating it is slower than float32."""
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float32
        )
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32
