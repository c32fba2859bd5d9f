"""A look at all of a data folder, while nobody may start on it."""

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deeplens_streams.data_check import images, kafka_log, tables, vectors
from deeplens_streams.data_check.damage import Check, Damage, Look
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.host.folder_lock import FolderInUse

CHECKS: dict[str, Check] = {
    "images": images.check,
    "tables": tables.check,
    "kafka": kafka_log.check,
    "vectors": vectors.check,
}


async def check(look: Look) -> AsyncIterator[Damage]:
    """Yield all that is damaged.

    Raises
    ------
    FolderInUse
        A system runs on it.
    ConfigurationError
        There is no such folder.
    """
    settings = look.settings
    if not settings.data_dir.is_dir():
        raise ConfigurationError(f"There is no data folder {settings.data_dir}.")
    with ExitStack() as held:
        for folder in (settings.data_dir, settings.state_path, settings.vectors_path):
            held.enter_context(_unused(folder))
        for part, one in CHECKS.items():
            look.part = part
            async for damage in one(look):
                look.faults[damage.kind] += 1
                yield damage


@contextmanager
def _unused(folder: Path) -> Iterator[None]:
    """Keep a folder from being taken by a system that starts; nothing is written."""
    try:
        lock = os.open(folder / ".lock", os.O_RDONLY)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FolderInUse(f"{folder} is in use by a system that runs; stop it first.") from None
    else:
        yield
    finally:
        os.close(lock)
