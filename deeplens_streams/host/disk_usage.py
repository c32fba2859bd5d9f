"""How much of the disk each part of the data folder takes, looked at seldom and gently."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mode import Service

from deeplens_streams.config import Settings
from deeplens_streams.metrics import DISK_FREE, DISK_USED

#: Seconds between two looks at all files, and at what is free.
_LOOK_S, _FREE_S = 1800.0, 30.0
#: Files and folders of a part that are looked at; of more the figure is that of so many.
MOST = 1_000_000
#: After so many of them others have their turn, for as many seconds.
_BATCH, _REST_S = 256, 0.002
#: Bytes of a block, whatever the file system's own are.
_BLOCK = 512


def parts(settings: Settings) -> dict[str, Path]:
    """Return the folders in which this machine may keep something, by what it is."""
    found = {"state": settings.state_path, "kafka": settings.data_dir / "kafka"}
    if settings.images_url.startswith("file:"):
        found["images"] = settings.images_path
    if settings.qdrant_url is None:
        found["vectors"] = settings.vectors_path
    return found


def used(folder: Path, is_over: Callable[[], bool] = lambda: False, most: int = MOST) -> int:
    """Return the bytes that what lies below `folder` takes on the disk; holes take none.

    What goes meanwhile is left out.

    Parameters
    ----------
    is_over : whether nobody wants to know any more.
    """
    taken, count, waiting = 0, 0, [folder]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if count == most or is_over():
                    return taken
                count += 1
                if count % _BATCH == 0:
                    time.sleep(_REST_S)
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    taken += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
    return taken


class DiskUsage(Service):
    """Of one process; what others on this machine say of the same folders is the same."""

    def __init__(self, settings: Settings, **kwargs: Any) -> None:
        self._parts = parts(settings)
        super().__init__(**kwargs)

    @Service.task
    async def _measure_used(self) -> None:
        while not self.should_stop:
            for name, folder in self._parts.items():
                if folder.is_dir():
                    taken = await asyncio.to_thread(used, folder, lambda: self.should_stop)
                    DISK_USED.labels(name).set(taken)
            await self.sleep(_LOOK_S)

    @Service.task
    async def _measure_free(self) -> None:
        while not self.should_stop:
            for name, folder in self._parts.items():
                with suppress(OSError):
                    DISK_FREE.labels(name).set(shutil.disk_usage(folder).free)
            await self.sleep(_FREE_S)
