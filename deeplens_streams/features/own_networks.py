"""Networks of one's own: an ONNX file, and beside it a row of TOML that says what it takes.

::

    # DEEPLENS_MODELS_DIR/shoes.toml, beside shoes.onnx
    dimension = 512
    input_size = 224                 # pixels of a side; the file takes n x 3 x 224 x 224 numbers
    resize_size = 256                # of the shorter side, before the centre is cut out
    mean = [0.485, 0.456, 0.406]     # of R, G, B, on a scale of 0 to 1
    std = [0.229, 0.224, 0.225]
    licence = "Apache-2.0"
"""

import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeplens_streams.errors import ConfigurationError

MAX_DIMENSION = 4096
_MAX_SIDE = 1024
_MIN_SIDE = 32
_CHANNELS = 3
#: A model's name has eight digits of the file's checksum behind it, and 63 characters at the most.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?", re.ASCII)

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class OwnNetwork:
    """One row, checked, and where its file is."""

    name: str
    file: Path
    dimension: int
    input_size: int
    resize_size: int
    mean: Triple
    std: Triple
    licence: str


def names_in(folder: Path) -> list[str]:
    """Return the names of all rows, whether these can be used or not."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def read_network(folder: Path, name: str) -> OwnNetwork:
    """Return the row of this name.

    Raises
    ------
    ConfigurationError
        It cannot be read or used, or its file is not there.
    """
    path = folder / f"{name}.toml"
    if not _NAME.fullmatch(name):
        raise _fault(path, "its name is a model's: use 1 to 48 of a-z, 0-9 and -")
    try:
        row = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _fault(path, f"it cannot be read ({error.strerror})") from None
    except ValueError as error:  # of TOML or of UTF-8
        raise _fault(path, f"it is no TOML ({error})") from None
    if unknown := sorted(row.keys() - _FIELDS.keys()):
        raise _fault(path, f"nobody knows {unknown[0]!r}; there are {', '.join(_FIELDS)}")
    if missing := [key for key in _FIELDS if key not in row]:
        raise _fault(path, f"{missing[0]} is missing")
    for key, (is_right, wanted) in _FIELDS.items():
        if not is_right(row[key]):
            raise _fault(path, f"{key} is {wanted}")
    if row["resize_size"] < row["input_size"]:
        raise _fault(path, "resize_size is input_size or more")
    file = path.with_suffix(".onnx")
    if not file.is_file():
        raise _fault(path, f"there is no {file.name} beside it")
    mean, std = (_triple(row[key]) for key in ("mean", "std"))
    sizes = {key: row[key] for key in ("dimension", "input_size", "resize_size")}
    return OwnNetwork(name, file, **sizes, mean=mean, std=std, licence=row["licence"])


def _fault(path: Path, fault: str) -> ConfigurationError:
    return ConfigurationError(f"DEEPLENS_MODELS_DIR: {path}: {fault}.")


def _triple(values: list[float]) -> Triple:
    red, green, blue = map(float, values)
    return red, green, blue


def _whole(low: int, high: int) -> tuple[Callable[[Any], bool], str]:
    def is_right(value: Any) -> bool:
        return type(value) is int and low <= value <= high

    return is_right, f"a whole number from {low} to {high}"


def _three(is_good: Callable[[float], bool], wanted: str) -> tuple[Callable[[Any], bool], str]:
    def is_right(value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) == _CHANNELS
            and all(type(each) in {int, float} and math.isfinite(each) for each in value)
            and all(map(is_good, value))
        )

    return is_right, f"a list of three numbers, of R, G and B, {wanted}"


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dimension": _whole(2, MAX_DIMENSION),
    "input_size": _whole(_MIN_SIDE, _MAX_SIDE),
    "resize_size": _whole(_MIN_SIDE, 2 * _MAX_SIDE),
    "mean": _three(lambda each: 0 <= each <= 1, "from 0 to 1"),
    "std": _three(lambda each: 0 < each <= 1, "above 0, to 1"),
    "licence": (lambda value: isinstance(value, str) and bool(value.strip()), "a text"),
}
