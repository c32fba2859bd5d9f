"""What we make of the pictures that decoders' makers test with, held against libvips.

Where the two differ, ``differences.toml`` says why. BMP, JPEG 2000 and HEVC libvips' package cannot
read: of those the pictures are held against what they were made from, where that is beside them.
"""

import base64
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.picture_archives import ARCHIVES, Archive
from tests.support.programs import ROOT, program

pytestmark = [pytest.mark.needs("picture archives"), pytest.mark.timeout(300)]

Answer = dict[str, Any]

LIST = tomllib.loads((Path(__file__).parent / "differences.toml").read_text())
#: Formats of which libvips' package has a decoder, and one that is not our own.
COMPARED = {"JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF"}
#: By how many levels of 255 pixels may differ: on an average, and one of them. Colours of half the
#: resolution are smoothed in different ways.
MEAN, WORST = 1.5, 12
#: Against what a picture was made from, which compression changed.
LOSSY_MEAN, LOSSY_WORST = 4.0, 40


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


@cache
def read(archive: Archive) -> dict[str, tuple[Answer, Answer]]:
    """Return by each file's place what we make of it, and what libvips does."""
    folder = Path(program("picture archives")) / archive.name
    paths = sorted(each for each in folder.rglob("*") if each.is_file())
    with ThreadPoolExecutor() as threads:
        both = threads.map(answers, ("ours", "libvips"), (paths, paths))
        names = (path.relative_to(folder).as_posix() for path in paths)
        return dict(zip(names, zip(*both, strict=True), strict=True))


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
    return difference(ours, other, MEAN, WORST)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda each: each.package)
def test_what_differs_from_libvips_is_known_and_explained(archive: Archive) -> None:
    found = {name: found_in(*both) for name, both in read(archive).items()}
    told = {
        name: each["in"]
        for each in LIST["difference"]
        if each["archive"] == archive.package
        for name in each["files"]
    }
    differ = {name: what for name, what in found.items() if what}
    details = {
        name: [{k: v for k, v in each.items() if k != "pixels"} for each in read(archive)[name]]
        for name in differ.keys() - told.keys()
    }
    assert differ == told, details


def test_enough_is_compared() -> None:
    """Formats are counted, lest nothing be compared and nothing differ."""
    both = [each for archive in ARCHIVES for each in read(archive).values()]
    taken = [ours["format"] for ours, other in both if "pixels" in ours and "pixels" in other]
    counted = {name: taken.count(name) for name in COMPARED}
    assert counted.keys() == LIST["least"].keys()
    assert all(counted[name] >= least for name, least in LIST["least"].items()), counted


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda each: each.package)
def test_what_libvips_cannot_read_is_what_it_was_made_from(archive: Archive) -> None:
    both = read(archive)
    wrong = {}
    for each in LIST["made_from"]:
        if each["archive"] == archive.package:
            for name in each["files"]:
                reference = both[each["reference"].format(Path(name).stem)][1]
                ours = both[name][0]
                assert "pixels" in ours, (name, ours)
                wrong[name] = difference(ours, reference, LOSSY_MEAN, LOSSY_WORST)
    assert wrong
    assert not {name: what for name, what in wrong.items() if what}
