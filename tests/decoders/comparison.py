"""What two decoders make of the same pictures, and in what they differ."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.programs import ROOT

Answer = dict[str, Any]

#: Formats of which libvips' package has a decoder, and one that is not our own.
COMPARED = {"JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF"}
#: By how many levels of 255 pixels may differ: on an average, and one of them. Colours of half the
#: resolution are smoothed in different ways.
_MEAN, _WORST = 1.5, 12


def both_read(paths: list[Path]) -> list[tuple[Answer, Answer]]:
    """Return what we make of each, and what libvips does."""
    with ThreadPoolExecutor() as threads:
        return list(zip(*threads.map(answers, ("ours", "libvips"), (paths, paths)), strict=True))


def answers(decoder: str, paths: list[Path]) -> list[Answer]:
    """Return what a decoder makes of each, in processes that may end with it."""
    found: list[Answer] = []
    while len(found) < len(paths):
        found += _answers(decoder, paths[len(found) :])
    return found


def _answers(decoder: str, paths: list[Path]) -> Iterator[Answer]:
    """Yield what one process says of the pictures until it ends, and how it ended."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.decoders.reading", decoder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for path in paths:
            process.stdin.write(f"{path}\n")
            line = process.stdout.readline()
            if not line:
                yield {"ended": process.wait()}
                return
            yield json.loads(line)


def difference(one: Answer, other: Answer, mean: float, worst: float) -> str | None:
    """Return in what two differ that were both decoded."""
    if one["size"] != other["size"] or one["pixels"][0] != other["pixels"][0]:
        return "size"
    apart = np.abs(_pixels(one) - _pixels(other))
    return "pixels" if apart.mean() > mean or apart.max() > worst else None


def _pixels(answer: Answer) -> np.ndarray:
    shape, told = answer["pixels"]
    return np.frombuffer(base64.b64decode(told), np.uint8).reshape(shape).astype(int)


def found_in(ours: Answer, other: Answer) -> str | None:
    """Return in what the two decoders differ; None if in nothing, or if one knows no such files."""
    for name, each in (("ours", ours), ("libvips", other)):
        if "ended" in each:
            return f"crash of {name}"
    if "format" in ours and ours["format"] not in COMPARED:
        return None
    if ("pixels" in ours) != ("pixels" in other):
        return "taken by us" if "pixels" in ours else "taken by libvips"
    return _seen(ours, other) if "pixels" in ours else None


def _seen(ours: Answer, other: Answer) -> str | None:
    if ours["format"] != other["format"]:
        return "format"
    if ours["size"] != ours["told"]:
        return "size"
    return difference(ours, other, _MEAN, _WORST)
