"""The model's process with a decoder that does what a picture begins with, and hardly a model.

Everything else of it is real: ``python -m tests.model.hostile_process FD FD``.
"""

import ctypes
import os
import sys
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import numpy.typing as npt

from deeplens_streams.features import decoding, process
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.features.decoding import Decoded

LOOP, HOG, CRASH, FAIL, FAIL_ONCE = b"loop", b"hog", b"crash", b"fail", b"fail once"

_seen: set[bytes] = set()


def picture(kind: bytes, number: int = 0) -> bytes:
    return kind + b":%d" % number


def _decode(data: bytes, model: ModelSpec, _max_pixels: int, _thumbnail_px: int | None) -> Decoded:
    kind, first = data.partition(b":")[0], data not in _seen
    _seen.add(data)
    if kind == LOOP:
        while True:
            time.sleep(0.01)
    if kind == HOG:  # and nothing of Python runs beside it
        ctypes.PyDLL(None).pause()
    if kind == CRASH:
        os.abort()
    if kind == FAIL or (kind == FAIL_ONCE and first):
        raise RuntimeError("CUDA error: out of luck")
    side = model.input_size
    return Decoded(np.zeros((side, side, 3), np.uint8), None, side, side, "PNG")


class Network:
    """Every vector is the same."""

    device, dtype = SimpleNamespace(type="cpu"), "float32"

    def __init__(self, model: ModelSpec, _weights: object, *, device: str) -> None:
        self._vector = np.eye(1, model.dimension, dtype=np.float32)[0]

    def warm_up(self, _sizes: tuple[int, ...]) -> None: ...

    def __call__(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.tile(self._vector, (len(batch), 1))


if __name__ == "__main__":
    small = ModuleType("deeplens_streams.features.network")
    small.__dict__["Network"] = Network
    sys.modules[small.__name__] = small
    decoding._decode = _decode
    decoding._weight = lambda _data, _max_pixels: 1
    process.main()
