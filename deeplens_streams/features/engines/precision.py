"""At which precision a model runs here."""

import re
from functools import cache
from pathlib import Path

import structlog

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.features.base import ModelSpec, Precision

log = structlog.get_logger()


@cache
def cpu_multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions for it; emulated it takes 4 to 6 times what float32 does."""
    try:
        found = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        return False
    return bool(found and {"amx_bf16", "avx512_bf16"} & set(found[1].split()))


def choose_precision(settings: Settings, model: ModelSpec, *, native: bool) -> Precision:
    """Return the precision for a device that multiplies bfloat16 itself, or does not.

    Raises
    ------
    ConfigurationError
        bfloat16 is asked for by name, and the device has none.
    """
    match settings.precision:
        case "f32":
            return "f32"
        case "bf16" if not native:
            raise ConfigurationError(
                "DEEPLENS_PRECISION is bf16, and this machine has no instructions for bfloat16; "
                "set it to auto or f32."
            )
        case "bf16":
            return "bf16"
    if model.precision != "f32" and not native:
        log.info("this machine has no instructions for bfloat16; the model runs in float32")
        return "f32"
    return model.precision
