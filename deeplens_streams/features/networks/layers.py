"""Convolutions with their batch norms folded in: how they are described, read and drawn."""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deeplens_streams.errors import WeightsUnavailable
from deeplens_streams.features.models import UNTRAINED_SEED


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution and the batch norm behind it, by the state dict's names."""

    convolution: str
    batch_norm: str
    channels_in: int
    channels_out: int
    kernel: int
    stride: int = 1
    groups: int = 1
    epsilon: float = 1e-5

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.channels_out, self.channels_in // self.groups, self.kernel, self.kernel


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution with its batch norm folded in; `weight` is channels-last."""

    weight: Tensor
    bias: Tensor
    stride: int
    groups: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        """Pad alike on all sides, as torch does."""
        return self._run(x, self.weight.shape[-1] // 2)

    def same(self, x: Tensor) -> Tensor:
        """Pad as TensorFlow does an input of an even size: at a stride of 2 less above and left."""
        kernel = self.weight.shape[-1]
        if self.stride == 1:
            return self._run(x, kernel // 2)
        padding = kernel - self.stride
        before = padding // 2
        after = padding - before
        return self._run(functional.pad(x, (before, after, before, after)), 0)

    def _run(self, x: Tensor, padding: int) -> Tensor:
        return functional.conv2d(
            x, self.weight, self.bias, self.stride, padding, groups=self.groups
        )


#: Makes the convolution of one layer.
Build = Callable[[Layer], Convolution]
#: Finds or draws the folded weight and bias of one layer.
Source = Callable[[Layer], tuple[Tensor, Tensor]]


class Architecture(Protocol):
    """Normalised pixels in, pooled activations out.

    Attributes
    ----------
    title : what people call it.
    remedy : what to do about weights that are not its own.
    """

    title: ClassVar[str]
    remedy: ClassVar[str]

    def __init__(self, build: Build) -> None: ...

    def __call__(self, x: Tensor) -> Tensor:
        """Return (n, dimension) float32 for (n, 3, input_size, input_size)."""
        ...


def untrained() -> Source:
    """Draw weights as torchvision does for an untrained network, but alike on every platform."""
    random = np.random.default_rng(UNTRAINED_SEED)

    def draw(layer: Layer) -> tuple[Tensor, Tensor]:
        fan_out = layer.channels_out // layer.groups * layer.kernel**2
        drawn = random.standard_normal(layer.shape, dtype=np.float32)
        return torch.from_numpy(drawn * np.float32((2 / fan_out) ** 0.5)), torch.zeros(
            layer.channels_out
        )

    return draw


def from_file(architecture: type[Architecture], path: Path) -> Source:
    """Read weights as data: nothing that a file holds is run.

    Raises
    ------
    WeightsUnavailable
        It holds no weights of this architecture; also later, of what is returned.
    """
    try:
        # Files in torch's older form are no archives, and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # pickle, zip and torch each have their own ways to fail
        raise _unusable(architecture, path) from error

    def read(layer: Layer) -> tuple[Tensor, Tensor]:
        try:
            return _fold(state, layer)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise _unusable(architecture, path) from error

    return read


def _fold(state: Mapping[str, Tensor], layer: Layer) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the convolution that does what it and its batch norm do."""
    norm = layer.batch_norm
    weight = state[f"{layer.convolution}.weight"].float().reshape(layer.shape)
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + layer.epsilon).sqrt()
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    return weight * scale.view(-1, 1, 1, 1), bias


def _unusable(architecture: type[Architecture], path: Path) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"{path} is damaged or holds no {architecture.title} weights; {architecture.remedy}."
    )
