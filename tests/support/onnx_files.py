"""Small ONNX files, written byte by byte: the package that makes them is no dependency."""

from collections.abc import Sequence

import numpy as np

Dim = int | str
_FLOAT = 1

#: What stands beside one.
ROW = """
dimension = 8
input_size = 32
resize_size = 40
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 1]
licence = "Apache-2.0"
"""


def onnx_file(
    *,
    side: int = 32,
    dimension: int = 8,
    batch: Dim = "n",
    opset: int = 17,
    constant: bool = False,
    infinite: bool = False,
    channels: int = 3,
    inputs: int = 1,
    outputs: Sequence[str] = ("vectors",),
) -> bytes:
    """Return a convolution and a mean: (batch, channels, side, side) to (batch, dimension)."""
    others = [f"more{number}" for number in range(1, inputs)]
    random = np.random.default_rng(3)
    weight = random.standard_normal((dimension, channels, 4, 4), dtype=np.float32)
    if constant:
        weight[:] = 0
    bias = np.full(dimension, np.inf if infinite else 0.5, np.float32)
    nodes = [
        _node("Conv", ["pixels", "weight", "bias"], ["maps"], strides=[4, 4]),
        _node("GlobalAveragePool", ["maps"], ["means"]),
        _node("Flatten", ["means"], ["flat"]),
        *(_node("Sum", ["flat", *others], [name]) for name in outputs),
    ]
    graph = b"".join(
        [
            *(_field(1, node) for node in nodes),
            _field(2, b"tiny"),
            _field(5, _tensor("weight", weight)),
            _field(5, _tensor("bias", bias)),
            _field(11, _value("pixels", [batch, channels, side, side])),
            *(_field(11, _value(name, [batch, dimension])) for name in others),
            *(_field(12, _value(name, [batch, dimension])) for name in outputs),
        ]
    )
    return _number(1, 8) + _field(7, graph) + _field(8, _number(2, opset))


def _node(kind: str, takes: list[str], gives: list[str], **lists: list[int]) -> bytes:
    return b"".join(
        [
            *(_field(1, name.encode()) for name in takes),
            *(_field(2, name.encode()) for name in gives),
            _field(4, kind.encode()),
            *(_field(5, _attribute(name, values)) for name, values in lists.items()),
        ]
    )


def _attribute(name: str, values: list[int]) -> bytes:
    ints = 7
    return _field(1, name.encode()) + b"".join(_number(8, v) for v in values) + _number(20, ints)


def _tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(_number(1, each) for each in values.shape)
    return dims + _number(2, _FLOAT) + _field(8, name.encode()) + _field(9, values.tobytes())


def _value(name: str, shape: Sequence[Dim]) -> bytes:
    dims = b"".join(
        _field(1, _number(1, each) if isinstance(each, int) else _field(2, each.encode()))
        for each in shape
    )
    tensor = _number(1, _FLOAT) + _field(2, dims)
    return _field(1, name.encode()) + _field(2, _field(1, tensor))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
