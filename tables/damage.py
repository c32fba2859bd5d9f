"""What is wrong with a folder of a table's partition, and putting it aside."""

import contextlib
import shutil
import time
from enum import StrEnum
from pathlib import Path

from rocksdict import DbClosedError

from deeplens_streams.errors import ConfigurationError

#: Folders that are kept of each partition, and for how many days: they hold rows of tenants.
KEPT, KEPT_DAYS = 2, 7
_DAY_S = 86_400

#: What RocksDB, whose errors are of no class of their own, says of a folder that is not whole. A
#: file where a folder belongs is one, too.
_DAMAGED = (
    "Corruption",
    "No such file or directory",
    "Not a directory",
    "Is a directory",
    "File exists",
    "Invalid argument",
    "not an sstable",
    "does not exist (create_if_missing",
)


class Reason(StrEnum):
    """Why a partition's copy on this disk is not gone on with."""

    CORRUPT = "corrupt"
    """RocksDB says so, or its files do not belong together."""
    AHEAD = "ahead"
    """It has changes that its changelog does not: Kafka's data was lost, or is older."""
    OTHER_CLUSTER = "other_cluster"
    """It was made from a changelog of another Kafka cluster."""
    TOO_OLD = "too_old"
    """Deletions that it has not heard of may be gone from its changelog."""


class TableFolderUnusable(ConfigurationError):
    """A folder of a table cannot be read or written."""

    code = "TABLE_FOLDER_UNUSABLE"


def is_damage(error: Exception) -> bool:
    """Tell whether what RocksDB raised is no matter of its disk, its rights or its lock."""
    return is_of_rocksdb(error) and any(words in str(error) for words in _DAMAGED)


def is_of_rocksdb(error: Exception) -> bool:
    return type(error) is Exception or isinstance(error, DbClosedError)


def put_aside(folder: Path) -> Path | None:
    """Move a partition's folder, or what is in its place, out of the way, and return where to.

    Of those of one partition only the last few are kept.
    """
    if not folder.exists():
        return None
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = folder.with_name(f"{folder.name}.damaged-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = folder.with_name(f"{folder.name}.damaged-{stamp}-{number}")
    folder.rename(aside)
    for old in _aside(folder)[:-KEPT]:
        remove(old)
    return aside


def remove_old(folder: Path) -> None:
    """Remove what was put aside of a partition's folder long ago."""
    for aside in _aside(folder):
        with contextlib.suppress(OSError):
            if time.time() - aside.lstat().st_ctime > KEPT_DAYS * _DAY_S:
                remove(aside)


def remove(folder: Path) -> None:
    """Remove a folder, or what is in its place, as far as that goes."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            folder.unlink()


def _aside(folder: Path) -> list[Path]:
    return sorted(folder.parent.glob(f"{folder.name}.damaged-*"))


def unusable(folder: Path, error: Exception) -> TableFolderUnusable:
    """Return what to say of a folder that cannot be opened, and is not damaged."""
    reason = str(error).partition("\n")[0][:200]
    if "No space left" in reason:
        advice = "make room on its disk"
    elif "lock hold" in reason or "lock file" in reason:
        advice = "stop the process that has it open"
    else:
        advice = (
            "give it to the user that runs the worker, or remove it: it is read from Kafka again"
        )
    return TableFolderUnusable(
        f"The table's folder {folder} cannot be opened ({reason}); {advice}."
    )
