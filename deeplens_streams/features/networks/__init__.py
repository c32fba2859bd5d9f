"""Networks, one module an architecture, each built from layers whose batch norms are folded.

The layers carry the names of the state dicts that the weights come in, and tests hold the outputs
against the networks that those were made for. They stand here because importing torchvision takes
longer than importing torch and loading the weights together. Importing this package imports torch.
"""

from deeplens_streams.features.networks.efficientnet_lite0 import EfficientNetLite0
from deeplens_streams.features.networks.layers import Architecture
from deeplens_streams.features.networks.resnet50 import ResNet50

__all__ = ["ARCHITECTURES", "Architecture"]

#: By `ModelSpec.architecture`.
ARCHITECTURES: dict[str, type[Architecture]] = {
    "resnet50": ResNet50,
    "efficientnet-lite0": EfficientNetLite0,
}
