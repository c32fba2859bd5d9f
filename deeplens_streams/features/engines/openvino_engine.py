"""A network in OpenVINO, on the CPU. Importing this module imports OpenVINO, and no torch."""

import math
import tempfile
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import structlog

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.features.base import ModelSpec, Precision
from deeplens_streams.features.engines.base import Pixels, Vectors
from deeplens_streams.features.engines.conversion import convert
from deeplens_streams.features.engines.kept import Converted, keep, kept_path, read_converted
from deeplens_streams.features.engines.precision import choose_precision, cpu_multiplies_bfloat16
from deeplens_streams.features.engines.runtime import openvino
from deeplens_streams.features.engines.threads import inference_threads

#: How OpenVINO and what it rests on say that memory is short.
_NO_MEMORY = ("bad_alloc", "out of memory", "out_of_memory", "Cannot allocate memory")

log = structlog.get_logger()


def open_openvino(settings: Settings, model: ModelSpec, weights: Path | None) -> "OpenVinoEngine":
    """Load the model's conversion, after making it where it is not there, damaged or another's.

    Raises
    ------
    WeightsUnavailable
        The file holds no weights of this network.
    ConfigurationError
        The precision is not to be had here, or the model cannot be converted.
    """
    precision = choose_precision(settings, model, native=cpu_multiplies_bfloat16())
    converted = find_converted(model, weights, precision)
    return OpenVinoEngine(
        model, converted, precision=precision, threads=inference_threads(settings)
    )


def find_converted(model: ModelSpec, weights: Path | None, precision: Precision) -> Converted:
    """Return the conversion that is kept, or make one and keep it.

    Raises
    ------
    WeightsUnavailable
        The file cannot be read, or holds no weights of this network.
    ConfigurationError
        The model cannot be converted here.
    """
    path = kept_path(model, weights, precision, openvino.get_version())
    kept = read_converted(path)
    if kept is not None:
        return kept
    log.info("the model is converted for OpenVINO, once", file=str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="converting-") as folder:
            partial = Path(folder) / path.name
            convert(model, weights, precision, partial)
            made = read_converted(partial)
            keep(partial, path)
    except OSError as error:
        log.warning(
            "the converted model cannot be kept, so each start makes it anew",
            folder=str(path.parent),
            reason=error.strerror,
        )
        with tempfile.TemporaryDirectory(prefix="deeplens-") as folder:
            partial = Path(folder) / path.name
            convert(model, weights, precision, partial)
            made = read_converted(partial)
    if made is None:
        raise ConfigurationError(
            f"What was written for OpenVINO to {path.parent} cannot be read again; "
            "see whether that disk is whole, or set DEEPLENS_ENGINE to torch."
        )
    return made


class OpenVinoEngine:
    """An `Engine`; each call takes one of `parallel` streams."""

    name, device = "openvino", "cpu"

    def __init__(
        self,
        model: ModelSpec,
        converted: Converted,
        *,
        precision: Precision,
        threads: int,
    ) -> None:
        self.precision: Precision = precision
        # Threads of one stream wait for each other, busily. Where a pass is short, that costs more
        # than it gains: two in bfloat16 took a quarter more CPU. A pass in float32 is long, and a
        # search waits for it; more than two gain nothing there either.
        self.parallel = math.ceil(threads / 2) if precision == "f32" else threads
        core = openvino.Core()
        network = core.read_model(converted.graph, openvino.Tensor(converted.numbers))
        self._compiled = core.compile_model(
            network,
            "CPU",
            {
                # Its default differs from machine to machine.
                "INFERENCE_PRECISION_HINT": "f32" if precision == "f32" else "bf16",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": self.parallel,
                # Else all processes that have one thread sit on the first core.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._free = SimpleQueue[openvino.InferRequest]()
        for _ in range(self.parallel):
            self._free.put(self._compiled.create_infer_request())
        self._side = model.input_size

    def __call__(self, pixels: Pixels) -> Vectors:
        request = self._free.get()
        try:
            request.infer({0: pixels}, share_inputs=True)
            pooled: Vectors = request.get_output_tensor().data
            length = np.sqrt(np.square(pooled).sum(axis=1, keepdims=True))
            vectors: Vectors = pooled / np.maximum(length, np.float32(1e-12))
        except RuntimeError as error:
            if any(each in str(error) for each in _NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise
        finally:
            self._free.put(request)
        return vectors

    def warm_up(self, sizes: tuple[int, ...]) -> None:
        for size in sizes:
            for _ in range(self.parallel):
                self(np.zeros((size, self._side, self._side, 3), np.uint8))
