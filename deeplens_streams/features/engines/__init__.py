"""What runs a network: OpenVINO on the CPU, torch on CUDA and as the reference.

Neither is imported before it is chosen.
"""

import ctypes
from importlib.util import find_spec
from pathlib import Path

import structlog

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.features.engines.base import Engine

__all__ = ["Engine", "open_engine"]

log = structlog.get_logger()


def open_engine(settings: Settings, model: ModelSpec, weights: Path | None) -> Engine:
    """Load the model on the engine that `settings` choose.

    Parameters
    ----------
    weights : their file, or None for an untrained network.

    Raises
    ------
    WeightsUnavailable
        The file holds no weights of this network.
    ConfigurationError
        The engine, the device or the precision is not to be had here.
    """
    if _choose(settings) == "openvino":
        # Either one: each takes memory and time to import.
        from deeplens_streams.features.engines.openvino_engine import (  # noqa: PLC0415
            open_openvino,
        )

        return open_openvino(settings, model, weights)
    if model.architecture == "onnx":
        raise ConfigurationError(
            f"{model.name} is an ONNX file, which OpenVINO alone runs here, on the CPU; install "
            "openvino, and set DEEPLENS_ENGINE to openvino and DEEPLENS_DEVICE to cpu."
        )
    try:
        from deeplens_streams.features.engines.torch_engine import open_torch  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"torch is not installed ({error}); install deeplens-streams[model], or set "
            "DEEPLENS_EXTRACTOR_URL to an extraction service."
        ) from error
    return open_torch(settings, model, weights)


def _choose(settings: Settings) -> str:
    """Return ``openvino`` or ``torch``."""
    installed = find_spec("openvino") is not None
    if settings.engine == "openvino":
        if settings.device == "cuda":
            raise ConfigurationError(
                "DEEPLENS_ENGINE is openvino, which runs on the CPU, and DEEPLENS_DEVICE is cuda; "
                "set DEEPLENS_ENGINE to torch or DEEPLENS_DEVICE to cpu."
            )
        if not installed:
            raise ConfigurationError(
                "DEEPLENS_ENGINE is openvino, which is not installed; install "
                "deeplens-streams[model], or set DEEPLENS_ENGINE to auto or torch."
            )
        return "openvino"
    if settings.engine == "torch" or settings.device == "cuda":
        return "torch"
    if settings.device == "auto" and _has_cuda() and find_spec("torch") is not None:
        return "torch"
    if not installed:
        log.info("OpenVINO is not installed; torch runs the model, at half the speed or less")
        return "torch"
    return "openvino"


def _has_cuda() -> bool:
    """Ask the driver, since torch takes seconds and hundreds of megabytes to say no."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
        and count.value > 0
    )
