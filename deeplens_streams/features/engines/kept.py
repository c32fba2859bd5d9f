"""Converted networks, kept beside torch's weights so that torch is imported once and never again.

One file each: the numbers, the graph, the graph's length and the SHA-256 of all before it.
Nothing in OpenVINO's own two files tells damage, and two files are not replaced at once.
"""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deeplens_streams.features.base import ModelSpec, Precision
from deeplens_streams.features.models import file_sha256
from deeplens_streams.features.weights import torch_home

#: Of what `conversion` writes; another version is another file.
GRAPH_VERSION = 3

_LENGTH = struct.Struct("<Q")
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Converted:
    """A network as OpenVINO reads it: `graph` is XML, `numbers` what its constants point into."""

    graph: bytes
    numbers: npt.NDArray[np.uint8]

    def write(self, path: Path) -> None:
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for part in (self.numbers.data, self.graph, _LENGTH.pack(len(self.graph))):
                digest.update(part)
                file.write(part)
            file.write(digest.digest())


def read_converted(path: Path) -> Converted | None:
    """Return what a file holds; None if there is none, or it is damaged."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError:
        return None
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:].tobytes()
    if len(body) < _LENGTH.size or hashlib.sha256(body.data).digest() != digest:
        return None
    parts, length = body[: -_LENGTH.size], _LENGTH.unpack(body[-_LENGTH.size :].tobytes())[0]
    return Converted(graph=parts[-length:].tobytes(), numbers=parts[:-length])


def kept_path(
    model: ModelSpec, weights: Path | None, precision: Precision, openvino_version: str
) -> Path:
    """Return where the conversion of a model is kept, whether it is there or not.

    The name has all that it depends on.

    Raises
    ------
    WeightsUnavailable
        The weights cannot be read.
    """
    if weights is None or model.architecture == "onnx":  # its row has a part in the version
        numbers = model.version
    else:
        numbers = file_sha256(weights)[:16]
    kind = "mixed" if precision == "mixed" else "plain"
    release = openvino_version.split("-", maxsplit=1)[0]
    name = f"{model.name}-{numbers}-{kind}-openvino-{release}-{GRAPH_VERSION}.network"
    return torch_home() / "deeplens" / name


def keep(partial: Path, path: Path) -> None:
    """Give a file that is whole its name; others may do the same at once.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    partial.chmod(0o644)
    partial.replace(path)
