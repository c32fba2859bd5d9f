"""The model's process with a decoder that does what a picture begins with, and hardly a model.

Everything else of it is real: ``python -m tests.model.hostile_process FD FD FD``.
"""

import ctypes
import os
import time
from threading import Event
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from deeplens_streams.config import Settings
from deeplens_streams.errors import UndecodableImage
from deeplens_streams.features import in_process
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.features.child import main
from deeplens_streams.imaging import decode
from deeplens_streams.imaging.decode import Decoded

LOOP, HOG, CRASH, FAIL, FAIL_ONCE = b"loop", b"hog", b"crash", b"fail", b"fail once"
#: One takes all the memory that there is, and one finds none; others want some, and say in two ways
#: that it is not there. Two are too much for the network, one of them only once.
GREEDY, FULL, NEEDY, MUTE = b"greedy", b"full", b"needy", b"mute"
HEAVY, HEAVY_ONCE = b"heavy", b"heavy once"
#: One whose library talks past Python.
CHATTY = b"chatty"
#: What the container is said to leave to pictures.
ROOM_BYTES = 100_000_000

_seen: set[bytes] = set()
_missed = Event()
_PATIENCE_S = 1.0
_HEAVY, _HEAVY_ONCE = 2, 1


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
    if kind == CHATTY:
        os.write(2, b"x" * 100_000 + b"\n" + b"odd.tif: \x1b[2Jan odd tag\n\n")
    if kind == FAIL or (kind == FAIL_ONCE and first):
        raise RuntimeError("CUDA error: out of luck")
    if kind == GREEDY:
        _take_all()
    if kind == FULL:
        raise MemoryError
    if kind in {NEEDY, MUTE}:
        _take_some(mute=kind == MUTE)
    side, heavy = model.input_size, {HEAVY: _HEAVY, HEAVY_ONCE: _HEAVY_ONCE}.get(kind, 0)
    return Decoded(np.full((side, side, 3), heavy, np.uint8), None, side, side, "PNG")


def _take_all() -> None:
    """Take memory until there is none, and keep it until somebody has missed it."""
    taken = list[bytearray]()
    try:
        while len(taken) < 10 * ROOM_BYTES // 4_000_000:
            taken.append(bytearray(4_000_000))
    except MemoryError:
        _missed.wait(_PATIENCE_S)
        raise


def _take_some(*, mute: bool) -> None:
    try:
        bytearray(ROOM_BYTES // 2)
    except MemoryError:
        _missed.set()
        if mute:  # as decoders in C are
            raise UndecodableImage from None
        raise


class Engine:
    """Every vector is the same."""

    name, device, precision, parallel = "hostile", "cpu", "f32", 2

    def __init__(self, _settings: Settings, model: ModelSpec, _weights: object) -> None:
        self._vector = np.eye(1, model.dimension, dtype=np.float32)[0]

    def warm_up(self, _sizes: tuple[int, ...]) -> None: ...

    def __call__(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        heaviest = int(batch.max())
        if heaviest == _HEAVY or (heaviest == _HEAVY_ONCE and not _missed.is_set()):
            _missed.set()
            raise MemoryError
        return np.tile(self._vector, (len(batch), 1))


if __name__ == "__main__":
    patch.object(in_process, "open_engine", Engine).start()
    patch.object(decode, "_decode", _decode).start()
    patch.object(decode, "_weight", lambda _data, _max_pixels: (1, True)).start()
    patch.object(main, "container_room", lambda: ROOM_BYTES).start()
    main.main()
