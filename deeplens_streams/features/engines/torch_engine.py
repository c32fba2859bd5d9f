"""A network in torch, on CUDA, and as the reference on the CPU. Importing this imports torch."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.features.base import ArchitectureName, ModelSpec, Precision
from deeplens_streams.features.engines.base import Pixels, Vectors
from deeplens_streams.features.engines.precision import choose_precision, cpu_multiplies_bfloat16
from deeplens_streams.features.engines.threads import inference_threads
from deeplens_streams.features.networks import ARCHITECTURES, Architecture
from deeplens_streams.features.networks.layers import Convolution, Layer, from_file, untrained

#: How torch says that main memory is short. Too little on a GPU is no such thing.
_NO_MEMORY = "DefaultCPUAllocator: "


def open_torch(settings: Settings, model: ModelSpec, weights: Path | None) -> "TorchEngine":
    """Load the model on the device and at the precision that `settings` choose.

    Raises
    ------
    WeightsUnavailable
        The file holds no weights of this network.
    ConfigurationError
        The device or the precision is not to be had here.
    """
    device = _choose_device(settings.device)
    on_cuda = device.type == "cuda"
    native = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if on_cuda
        else cpu_multiplies_bfloat16()
    )
    return TorchEngine(
        model,
        weights,
        device=device,
        precision=choose_precision(settings, model, native=native),
        parallel=1 if on_cuda else inference_threads(settings),
    )


class TorchEngine:
    """An `Engine`; on the CPU each call keeps to its own thread.

    Raises
    ------
    WeightsUnavailable
        The file holds no weights of this network.
    """

    name = "torch"

    def __init__(
        self,
        model: ModelSpec,
        weights: Path | None,
        *,
        device: torch.device = torch.device("cpu"),  # noqa: B008 -- a constant
        precision: Precision = "f32",
        parallel: int = 1,
    ) -> None:
        self._device = device
        # Which layers need float32 is told to OpenVINO alone.
        self.precision: Precision = "bf16" if precision == "bf16" else "f32"
        self.parallel = parallel
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._network = build_network(model.architecture, weights, device, self._dtype)
        scale = 1 / (255 * np.array(model.std, np.float32))
        shift = np.array(model.mean, np.float32) / np.array(model.std, np.float32)
        self._scale = torch.from_numpy(scale).view(1, 3, 1, 1).to(device)
        self._shift = torch.from_numpy(shift).view(1, 3, 1, 1).to(device)
        self._side = model.input_size

    @property
    def device(self) -> str:
        return self._device.type

    @torch.inference_mode()
    def __call__(self, pixels: Pixels) -> Vectors:
        torch.set_num_threads(1)  # of this thread: OpenMP keeps it for each caller
        try:
            vectors: Vectors = self._run(torch.from_numpy(pixels)).cpu().numpy()
        except RuntimeError as error:
            if _NO_MEMORY in str(error):
                raise MemoryError(str(error)) from error
            raise
        return vectors

    def warm_up(self, sizes: tuple[int, ...]) -> None:
        for size in sizes:
            self(np.zeros((size, self._side, self._side, 3), np.uint8))

    def _run(self, pixels: Tensor) -> Tensor:
        # Pixels lie channels-last already: a permuted view is all that the network wants.
        x = pixels.to(self._device).permute(0, 3, 1, 2).float()
        x = x.mul_(self._scale).sub_(self._shift).to(self._dtype)
        return functional.normalize(self._network(x))


def build_network(
    name: ArchitectureName, weights: Path | None, device: torch.device, dtype: torch.dtype
) -> Architecture:
    """Return a network with its weights, or with drawn ones.

    Raises
    ------
    WeightsUnavailable
        The file holds no weights of this network.
    """
    architecture = ARCHITECTURES[name]
    source = untrained() if weights is None else from_file(architecture, weights)

    def build(layer: Layer) -> Convolution:
        weight, bias = (each.to(device, dtype) for each in source(layer))
        weight = weight.contiguous(memory_format=torch.channels_last)
        return Convolution(weight, bias, layer.stride, layer.groups)

    return architecture(build)


def _choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigurationError(
            "DEEPLENS_DEVICE is cuda, and torch finds no CUDA device; set it to auto or cpu."
        )
    return torch.device("cuda")
