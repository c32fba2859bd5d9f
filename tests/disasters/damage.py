"""What happens to a part of a data folder: lost, emptied, cut short, or older than the rest."""

import os
import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path


class Damage(StrEnum):
    LOST = "lost"
    """It is not there any more."""
    EMPTIED = "emptied"
    """Each of its files is there and holds nothing, as a power cut leaves them."""
    CUT = "cut short"
    """The second half of each of its files is missing."""
    OLDER = "older than the rest"
    """It is as it was some time ago."""


def files_below(path: Path) -> Iterator[Path]:
    """Yield `path` itself if it is a file, else each file below it."""
    if path.is_file():
        yield path
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def do(damage: Damage, part: str, *, data: Path, older: Path) -> None:
    """Damage `data / part`; `older` is the same data folder as it was some time ago."""
    path = data / part
    if damage in (Damage.LOST, Damage.OLDER):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if damage is Damage.OLDER and (older / part).exists():
            copy(older / part, path)
        return
    for file in files_below(path):
        size = file.stat().st_size
        os.truncate(file, size // 2 if damage is Damage.CUT else 0)


def copy(source: Path, target: Path) -> None:
    """Copy a folder or a file with its times; holes stay holes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.spawnlp(os.P_WAIT, "cp", "cp", "-a", "--sparse=always", str(source), str(target))
    assert target.exists()
