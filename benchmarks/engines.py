"""The engines beside each other: ``python -m benchmarks.engines [MODEL …]``, in turn.

Each has as many calls at once as it gains from. CPU time is the least of some rounds; beside other
work it says more than images a second do, which are the most of them.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from deeplens_streams.config import Settings, load_settings
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.features.engines import Engine, open_engine
from deeplens_streams.features.models import CATALOGUE, named
from deeplens_streams.features.weights import find_weights

_ROUNDS, _IMAGES = 3, 16
_SIZES = (1, 8)


def run(engine: Engine, model: ModelSpec, size: int) -> tuple[float, float]:
    """Return images a second, and milliseconds of CPU an image."""
    pixels = np.zeros((size, model.input_size, model.input_size, 3), np.uint8)
    calls = _IMAGES // size
    began, spent = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(engine.parallel) as pool:
        list(pool.map(lambda _: engine(pixels), range(calls)))
    spent, took = time.process_time() - spent, time.perf_counter() - began
    return calls * size / took, spent / (calls * size) * 1000


def compare(model: ModelSpec, settings: Settings) -> None:
    weights = find_weights(settings, model)
    if weights is None and model.name != "resnet50-untrained":
        print(f"{model.name}: its weights are not on this machine")
        return
    engines = [
        open_engine(settings.model_copy(update={"engine": name, "device": "cpu"}), model, weights)
        for name in ("openvino", "torch")
    ]
    for engine in engines:
        engine.warm_up(_SIZES)
    for size in _SIZES:
        found = [[run(engine, model, size) for engine in engines] for _ in range(_ROUNDS)]
        for engine, rounds in zip(engines, zip(*found, strict=True), strict=True):
            print(
                f"{model.name}, {engine.name} {engine.precision}, batches of {size}: "
                f"{min(cpu for _, cpu in rounds):.1f} ms of CPU an image, "
                f"{max(speed for speed, _ in rounds):.0f} images a second",
                flush=True,
            )


def main() -> None:
    settings = load_settings()
    for model in [named(settings, each) for each in sys.argv[1:]] or CATALOGUE.values():
        compare(model, settings)


if __name__ == "__main__":
    main()
