"""ResNet50 up to its pooled 2048 numbers, by torchvision's names."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from deeplens_streams.features.networks.layers import Build, Convolution, Layer

#: Blocks, width and stride of ``layer1`` to ``layer4``.
_STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
_EXPANSION = 4


class _Bottleneck:
    """Three convolutions, and a shortcut around them."""

    def __init__(self, build: Build, at: str, channels: int, width: int, stride: int) -> None:
        wide = width * _EXPANSION
        self._first = build(Layer(f"{at}.conv1", f"{at}.bn1", channels, width, 1))
        self._second = build(Layer(f"{at}.conv2", f"{at}.bn2", width, width, 3, stride))
        self._third = build(Layer(f"{at}.conv3", f"{at}.bn3", width, wide, 1))
        self._shortcut: Convolution | None = None
        if channels != wide:
            names = f"{at}.downsample.0", f"{at}.downsample.1"
            self._shortcut = build(Layer(*names, channels, wide, 1, stride))

    def __call__(self, x: Tensor) -> Tensor:
        y = functional.relu_(self._second(functional.relu_(self._first(x))))
        return functional.relu_(
            self._third(y).add_(x if self._shortcut is None else self._shortcut(x))
        )


class ResNet50:
    """An `Architecture`: torchvision's network without its last layer."""

    title: ClassVar = "ResNet50"
    remedy: ClassVar = (
        "delete it to have it downloaded again, or set DEEPLENS_WEIGHTS to a file of ResNet50 "
        "IMAGENET1K_V2 weights, or to untrained"
    )

    def __init__(self, build: Build) -> None:
        self._stem = build(Layer("conv1", "bn1", 3, 64, 7, 2))
        self._blocks = list[_Bottleneck]()
        channels = 64
        for stage, (blocks, width, stride) in enumerate(_STAGES, start=1):
            for block in range(blocks):
                at, step = f"layer{stage}.{block}", stride if block == 0 else 1
                self._blocks.append(_Bottleneck(build, at, channels, width, step))
                channels = width * _EXPANSION

    def __call__(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu_(self._stem(x)), 3, 2, 1)
        for block in self._blocks:
            x = block(x)
        return x.float().mean(dim=(2, 3))
