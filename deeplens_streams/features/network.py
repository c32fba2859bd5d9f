"""A network in torch: the reference, for inference only. Importing this module imports torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from deeplens_streams.errors import ConfigurationError
from deeplens_streams.features.base import ModelSpec, Precision
from deeplens_streams.features.networks import ARCHITECTURES
from deeplens_streams.features.networks.layers import Convolution, Layer, from_file, untrained


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
        self.dtype = dtype or _choose_dtype(self.device, model.precision)
        architecture = ARCHITECTURES[model.architecture]
        source = untrained() if weights is None else from_file(architecture, weights)

        def build(layer: Layer) -> Convolution:
            weight, bias = (each.to(self.device, self.dtype) for each in source(layer))
            weight = weight.contiguous(memory_format=torch.channels_last)
            return Convolution(weight, bias, layer.stride, layer.groups)

        self._network = architecture(build)
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
        (n, dimension) float32, each row L2-normalised.
        """
        torch.set_num_threads(1)  # of this thread: OpenMP keeps it for each caller
        # Pixels lie channels-last already: a permuted view is all that the network wants.
        x = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
        x = x.mul_(self._scale).sub_(self._shift).to(self.dtype)
        vectors: npt.NDArray[np.float32] = functional.normalize(self._network(x)).cpu().numpy()
        return vectors

    def warm_up(self, sizes: tuple[int, ...]) -> None:
        """Run batches of these sizes: the first one of each size prepares its kernels."""
        for size in sizes:
            self(np.zeros((size, self._side, self._side, 3), np.uint8))


def _choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigurationError(
            "DEEPLENS_DEVICE is cuda, and torch finds no CUDA device; set it to auto or cpu."
        )
    return torch.device("cuda")


def _choose_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """bfloat16 where the model bears it and the hardware multiplies it: emulated it is slow."""
    if precision != "bf16":
        return torch.float32
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float32
        )
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32
