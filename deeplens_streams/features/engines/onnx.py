"""A network of one's own, read from its ONNX file and tried once. Importing it imports OpenVINO."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deeplens_streams.errors import ConfigurationError
from deeplens_streams.features.engines.runtime import openvino

#: What later ones mean by the same names is not known.
OPSETS = range(7, 24)

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_OPSET_IMPORT, _DOMAIN, _VERSION = 8, 1, 2


def read_onnx(path: Path, *, side: int, dimension: int) -> openvino.Model:
    """Return the network of a file; it takes (n, 3, side, side) float32.

    Raises
    ------
    ConfigurationError
        It is no ONNX file, or not what the model's row says; or what it makes of a picture is no
        vector to search by.
    """
    content = path.read_bytes()
    try:
        opset = _opset(memoryview(content))
    except (IndexError, ValueError):
        opset = None
    if opset is None:
        raise _fault(path, "it is no ONNX file, or cut short")
    if opset not in OPSETS:
        raise _fault(path, f"it is of opset {opset}; {OPSETS[0]} to {OPSETS[-1]} are taken")
    try:
        # From memory: a part in a file beside it would not be in the checksum.
        network = openvino.Core().read_model(content)
    except RuntimeError as error:
        raise _fault(path, f"OpenVINO cannot read it ({_last_line(error)})") from None
    _require_input(network, side, path)
    _require_output(network, dimension, path)
    _try(network, side, dimension, path)
    return network


def _require_input(network: openvino.Model, side: int, path: Path) -> None:
    inputs = network.inputs
    wanted = f"n x 3 x {side} x {side} numbers of 32 bits"
    if len(inputs) != 1:
        raise _fault(path, f"it has {len(inputs)} inputs; one is wanted, of {wanted}")
    shape, kind = inputs[0].partial_shape, inputs[0].element_type
    fits = shape.compatible(openvino.PartialShape([-1, 3, side, side]))
    if kind != openvino.Type.f32 or not fits:
        raise _fault(path, f"its input is {shape} of {kind.get_type_name()}; {wanted} are wanted")
    try:
        network.reshape([-1, 3, side, side])
    except RuntimeError as error:
        raise _fault(path, f"it takes no batches ({_last_line(error)})") from None


def _require_output(network: openvino.Model, dimension: int, path: Path) -> None:
    wanted = f"n x {dimension}"
    if len(network.outputs) != 1:
        raise _fault(path, f"it has {len(network.outputs)} outputs; one is wanted, of {wanted}")
    shape = network.outputs[0].partial_shape
    if not (
        shape.rank == openvino.Dimension(2)
        and shape.compatible(openvino.PartialShape([-1, dimension]))
    ):
        raise _fault(path, f"its output is {shape}; {wanted} are wanted")


def _try(network: openvino.Model, side: int, dimension: int, path: Path) -> None:
    """Look at what it makes of pictures that are all noise, in a batch and alone."""
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    random = np.random.default_rng(0)
    shape = (2, 3, side, side)
    pictures = random.standard_normal(shape, dtype=np.float32)
    try:
        both, first = (compiled([each])[0] for each in (pictures, pictures[:1]))
    except RuntimeError as error:
        raise _fault(path, f"it cannot be run ({_last_line(error)})") from None
    if both.shape != (2, dimension):
        raise _fault(path, f"of two pictures it makes {both.shape} numbers")
    if not np.isfinite(both).all():
        raise _fault(path, "what it makes of a picture is not finite")
    if np.ptp(both, axis=1).min() == 0 or np.array_equal(both[0], both[1]):
        raise _fault(path, "what it makes of a picture is constant")
    if not np.allclose(both[:1], first, rtol=1e-2, atol=1e-3 * np.abs(first).max()):
        raise _fault(path, "what it makes of a picture depends on what else is in the batch")


def _fault(path: Path, fault: str) -> ConfigurationError:
    return ConfigurationError(f"DEEPLENS_MODELS_DIR: {path}: {fault}.")


def _last_line(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".")[:200] if lines else type(error).__name__


def _opset(content: memoryview) -> int | None:
    """Return the opset of ONNX's own operators, which OpenVINO does not look at."""
    for number, value in _fields(content):
        if number == _OPSET_IMPORT and isinstance(value, memoryview):
            entry = dict(_fields(value))
            version = entry.get(_VERSION)
            if entry.get(_DOMAIN, b"") in (b"", b"ai.onnx") and isinstance(version, int):
                return version
    return None


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a protocol buffer: their numbers and values."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind, value = key & 7, 0
        if kind == _VARINT:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(content, at)
        elif kind in {_FIXED32, _FIXED64}:
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(kind)
        if at + size > len(content):
            raise ValueError(size)
        yield key >> 3, content[at : at + size]
        at += size


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 -- the bit that says that more follow
            return value, at
