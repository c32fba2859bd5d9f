"""Collections of Qdrant Edge whose files are damaged: told from what passes, and put aside.

A power cut or a bad disk leaves files that are empty, cut short or missing. Edge says so with a
bare `Exception`, or with a panic of its Rust code, and would say it at every call from then on:
nothing of the tenant could be stored any more. So such a collection is moved out of the way and
kept, a new one takes its place, and searches are refused until an audit's repair has the missing
vectors made anew.
"""

import shutil
import time
from pathlib import Path

import structlog

from deeplens_streams.errors import VectorsUnavailable
from deeplens_streams.metrics import COLLECTIONS_DAMAGED

log = structlog.get_logger()

#: Behind a collection's name: damaged, so searches are refused; known to be, and kept for a while.
_DAMAGED, _ASIDE = ".damaged", ".aside"
#: Days that files are kept once the vectors are made anew.
KEPT_DAYS = 30

#: Of the machine, which pass or are mended without touching the files.
_PASSING = (
    "no space left",
    "too many open files",
    "permission denied",
    "cannot allocate memory",
    "resource temporarily unavailable",
    "read-only file system",
    "input/output error",
    "stale file handle",
)
#: What a collection that was loaded says of files that are not as they were written.
_OF_FILES = ("out of bounds", "failed to deserialize", "inconsistent", "does not exist")


class VectorsDamaged(VectorsUnavailable):
    """Vectors are damaged and were put aside; ``deeplens audit --repair`` makes them anew."""

    #: The engine itself is well: no breaker opens for it.
    ambiguous = True


def is_panic(error: BaseException) -> bool:
    """Tell whether Edge's Rust code gave up; its error is no `Exception`."""
    return type(error).__name__ == "PanicException"


def is_of_engine(error: BaseException) -> bool:
    """Tell whether the engine or the machine said it; all else is a wrong call of ours.

    What Edge is given wrongly it refuses with Python's own `TypeError` or `ValueError`.
    """
    return type(error) is Exception or is_panic(error) or isinstance(error, OSError | MemoryError)


def is_damage(error: BaseException, *, loading: bool) -> bool:
    """Tell whether an error of Edge says that a collection's files are damaged.

    Parameters
    ----------
    loading : a collection was being opened, which fails for its files or for the machine alone.
    """
    said = str(error).lower()
    if not is_of_engine(error) or any(passing in said for passing in _PASSING):
        return False
    return loading or (not is_panic(error) and any(word in said for word in _OF_FILES))


class DamagedCollections:
    """The collections of a folder that were put aside. All calls come from one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] | None = None

    @property
    def names(self) -> set[str]:
        """Those of which searches are refused."""
        if self._names is None:
            found = self._folder.glob(f"*{_DAMAGED}-*")
            self._names = {path.name.partition(_DAMAGED)[0] for path in found}
        return self._names

    def check(self, name: str) -> None:
        """Raise `VectorsDamaged` if vectors of the collection were put aside."""
        if name in self.names:
            raise VectorsDamaged

    def put_aside(self, name: str, reason: BaseException) -> None:
        """Move the collection's files out of the way."""
        names = self.names
        (self._folder / name).rename(self._folder / f"{name}{_DAMAGED}-{time.time_ns()}")
        names.add(name)
        COLLECTIONS_DAMAGED.inc()
        log.error(
            "a collection is damaged and was put aside; deeplens audit --repair makes it anew",
            collection=name,
            reason=str(reason)[:300],
        )

    def give_up(self, name: str) -> None:
        """Have searches go on without what was put aside, which is kept for some time."""
        for path in list(self._folder.glob(f"{name}{_DAMAGED}-*")):
            path.rename(path.with_name(path.name.replace(_DAMAGED, _ASIDE)))
        self.names.discard(name)

    def remove(self, name: str) -> bool:
        """Remove all that was put aside of a collection, and tell whether there was any."""
        kept = [each for end in (_DAMAGED, _ASIDE) for each in self._folder.glob(f"{name}{end}-*")]
        for path in kept:
            shutil.rmtree(path)
        self.names.discard(name)
        return bool(kept)

    def forget_old(self) -> None:
        """Remove what was given up more than `KEPT_DAYS` ago."""
        before = time.time_ns() - KEPT_DAYS * 86_400 * 10**9
        for path in list(self._folder.glob(f"*{_ASIDE}-*")):
            at = path.name.rpartition("-")[2]
            if at.isdigit() and int(at) < before:
                shutil.rmtree(path)
