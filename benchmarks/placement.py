"""Where decoding and inference belong: ``python -m benchmarks.placement [ROUNDS]``, in turn.

``child`` is what there is: one child process decodes and infers. ``worker`` infers in threads of
the worker, and ``below`` in the child; both decode in processes that have one picture each.
Beside each an event loop does what a worker's does of Python, and asks for a search's vector four
times a second. ``DEEPLENS_*`` settings choose the model.
"""

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection

import psutil

from benchmarks.pictures import photographs
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.features.base import FeatureExtractor, ModelSpec
from deeplens_streams.features.child import main as process
from deeplens_streams.features.child.client import ChildFeatures
from deeplens_streams.features.child.in_flight import InFlightRegister
from deeplens_streams.features.in_process import LocalFeatures
from deeplens_streams.features.models import choose_model
from deeplens_streams.imaging.decode import Decoded, decode

_PLACEMENTS = ("child", "worker", "below")
_ROUNDS, _PICTURES, _WARM_UP = 3, 192, 64
_NICENESS = 10
_WORK_S, _SLICES = 0.010, 10
_BEAT_S, _SEARCH_S = 0.005, 0.25
_own = threading.local()


class PooledFeatures(LocalFeatures):
    """`LocalFeatures` with a process for each thread that decodes; nothing ends a decoder."""

    def __init__(
        self, settings: Settings, model: ModelSpec, board: InFlightRegister | None = None
    ) -> None:
        super().__init__(settings, model, board)
        start = partial(_start_decoder, settings, model)
        self._decoders = ThreadPoolExecutor(2, initializer=start)
        self._urgent_decoder = ThreadPoolExecutor(1, initializer=start)
        self._inference = ThreadPoolExecutor(self._threads, initializer=_step_back)

    async def _decode(
        self, data: bytes, thumbnail_px: int | None, number: int, *, urgent: bool
    ) -> Decoded:
        pool = self._urgent_decoder if urgent else self._decoders
        return await asyncio.get_running_loop().run_in_executor(pool, _ask, data, thumbnail_px)


def _step_back() -> None:
    """Give this thread, and those that it starts, the priority that the child has."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _start_decoder(settings: Settings, model: ModelSpec) -> None:
    context = get_context("spawn")
    _own.connection, theirs = context.Pipe()
    context.Process(target=_decode_all, args=(theirs, settings, model), daemon=True).start()


def _ask(data: bytes, thumbnail_px: int | None) -> Decoded:
    _own.connection.send((data, thumbnail_px))
    found: Decoded = _own.connection.recv()
    return found


def _decode_all(connection: Connection, settings: Settings, model: ModelSpec) -> None:
    _step_back()
    limit = settings.max_pixels
    with suppress(EOFError):
        while True:
            data, thumbnail_px = connection.recv()
            connection.send(decode(data, model, max_pixels=limit, thumbnail_px=thumbnail_px))


def _open(placement: str, settings: Settings) -> FeatureExtractor:
    model = choose_model(settings)
    if placement == "worker":
        return PooledFeatures(settings, model)
    if placement == "below":
        return ChildFeatures(settings, model, program="benchmarks.placement")
    return ChildFeatures(settings, model)


async def measure(placement: str) -> None:
    settings = load_settings()
    pictures = list(photographs(_WARM_UP, width=1152, height=864))
    features = _open(placement, settings)
    await features.ready()
    late, waits = list[float](), list[float]()

    async def beat() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_BEAT_S)
            late.append(time.perf_counter() - began - _BEAT_S)

    async def search() -> None:
        for each in count():
            await asyncio.sleep(_SEARCH_S)
            began = time.perf_counter()
            await features.extract(pictures[each % len(pictures)], urgent=True)
            waits.append(time.perf_counter() - began)

    async def ingest(total: int) -> None:
        numbers = iter(range(total))

        async def actor() -> None:
            for number in numbers:
                await _work()
                await features.extract(
                    pictures[number % len(pictures)], thumbnail_px=settings.thumbnail_px
                )

        await asyncio.gather(*(actor() for _ in range(settings.extract_concurrency)))

    await features.extract(pictures[0], urgent=True)
    await ingest(_WARM_UP)
    beside = [asyncio.create_task(each()) for each in (beat, search)]
    began, spent = time.perf_counter(), _cpu_s()
    await ingest(_PICTURES)
    took, spent = time.perf_counter() - began, _cpu_s() - spent
    for each in beside:
        each.cancel()
    print(
        f"{placement}: {_PICTURES / took:.1f} pictures a second, "
        f"{spent / _PICTURES * 1000:.1f} ms of CPU a picture; the loop is late by "
        f"{_part(late, 0.99):.0f} ms (99th percentile), {_part(late, 1):.0f} (worst); a search "
        f"takes {_part(waits, 0.5):.0f} ms (median), {_part(waits, 0.95):.0f} (95th percentile); "
        f"{sum(each.memory_info().rss for each in _family()) / 1e6:.0f} MB resident, load "
        f"{os.getloadavg()[0]:.1f}",
        flush=True,
    )
    await features.close()


async def _work() -> None:
    """Hold the interpreter as a worker does for one picture, in pieces."""
    for _ in range(_SLICES):
        end = time.thread_time() + _WORK_S / _SLICES
        while time.thread_time() < end:
            sum(range(100))
        await asyncio.sleep(0)


def _family() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def _cpu_s() -> float:
    return sum(sum(each.cpu_times()[:2]) for each in _family())


def _part(found: list[float], share: float) -> float:
    """Return a percentile in milliseconds."""
    return sorted(found)[min(len(found) - 1, int(len(found) * share))] * 1000


def main() -> None:
    match sys.argv[1:]:
        case [placement] if placement in _PLACEMENTS:
            asyncio.run(measure(placement))
        case [_, _]:  # two descriptors: this is the child of ``below``
            process.LocalFeatures = PooledFeatures  # type: ignore[attr-defined]
            process.main()
        case arguments:
            for _ in range(int(arguments[0]) if arguments else _ROUNDS):
                for each in _PLACEMENTS:
                    subprocess.run([sys.executable, "-m", __spec__.name, each], check=True)


if __name__ == "__main__":
    main()
