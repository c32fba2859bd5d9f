"""What we make of the pictures that decoders' makers test with, held against libvips.

Where the two differ, ``differences.toml`` says why. BMP, JPEG 2000 and HEVC libvips' package cannot
read: of those the pictures are held against what they were made from, where that is beside them.
"""

import tomllib
from functools import cache
from pathlib import Path

import pytest

from tests.decoders.comparison import COMPARED, Answer, both_read, difference, found_in
from tests.support.picture_archives import ARCHIVES, Archive
from tests.support.programs import program

pytestmark = [pytest.mark.needs("picture archives"), pytest.mark.timeout(300)]

LIST = tomllib.loads((Path(__file__).parent / "differences.toml").read_text())
#: Against what a picture was made from, which compression changed.
LOSSY_MEAN, LOSSY_WORST = 4.0, 40


@cache
def read(archive: Archive) -> dict[str, tuple[Answer, Answer]]:
    """Return by each file's place what we make of it, and what libvips does."""
    folder = Path(program("picture archives")) / archive.name
    paths = sorted(each for each in folder.rglob("*") if each.is_file())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return dict(zip(names, both_read(paths), strict=True))


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
