"""Whether a picture is let in: not when the disk is nearly full or too many wait already."""

import math
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from deeplens_streams.config import Settings
from deeplens_streams.errors import BacklogFull, StorageFull
from deeplens_streams.ingest.spool import BLOCK_BYTES

#: Bounds of what a client is told to wait, in seconds, and what it is told while nothing drains.
_SHORTEST_S, _LONGEST_S, _UNKNOWN_S = 1, 3600, 30


class Backlog(Protocol):
    """Pictures on their way, as Kafka has them."""

    @property
    def waiting(self) -> int | None:
        """None while that is not known."""

    @property
    def drain_rate(self) -> float | None:
        """Pictures a second; None while that is not known."""


class AdmissionControl:
    """Looked at before the first byte of an upload or a search is read."""

    def __init__(self, settings: Settings, backlog: Backlog) -> None:
        self._reserve = settings.disk_reserve_bytes
        self._limit = settings.max_backlog
        self._largest = settings.max_upload_bytes
        self._fetches = settings.url_import
        self._backlog = backlog
        #: Bytes that uploads and searches under way may still write.
        self._coming = 0
        self._folders = [settings.state_path]
        if settings.storage_url is None or settings.storage_url.startswith("file:"):
            self._folders.append(settings.images_path)

    @contextmanager
    def admit(self, size: int | None) -> Iterator[None]:
        """Let an upload of at most `size` bytes in, and keep room for it until its end.

        Parameters
        ----------
        size : of its whole body; None where the client does not say, which may be the largest.

        Raises
        ------
        StorageFull
            The disk is nearly full, or will be by the uploads that are let in already: what is
            there needs the rest to be processed.
        BacklogFull
            More pictures wait than the limit allows.
        """
        # An address is short, and what it leads to is not.
        size = self._largest if size is None or self._fetches else min(size, self._largest)
        with self._room(self._folders, size):
            self._check_backlog()
            yield

    @contextmanager
    def admit_query(self, size: int | None) -> Iterator[None]:
        """Let a search in, and keep room for its picture until its end; as `admit`.

        What is smaller than a block is not written, so that a search by a stored image is let in
        by a full disk, too.

        Raises
        ------
        StorageFull
        """
        size = self._largest if size is None else min(size, self._largest)
        with self._room(self._folders[:1], size) if size >= BLOCK_BYTES else nullcontext():
            yield

    @contextmanager
    def _room(self, folders: Iterable[Path], size: int) -> Iterator[None]:
        for folder in folders:
            if _free(folder) - self._coming - size < self._reserve:
                raise StorageFull(
                    "The disk is nearly full; make room, or set DEEPLENS_DISK_RESERVE_BYTES."
                )
        self._coming += size
        try:
            yield
        finally:
            self._coming -= size

    def _check_backlog(self) -> None:
        waiting = self._backlog.waiting
        if waiting is not None and waiting >= self._limit:
            error = BacklogFull(f"{waiting:,} pictures wait to be processed; try again later.")
            error.retry_after = _wait(waiting - self._limit + 1, self._backlog.drain_rate)
            raise error


def _wait(too_many: int, drain_rate: float | None) -> int:
    """Return after how many seconds there is room, as things go now."""
    if not drain_rate:
        return _UNKNOWN_S
    return min(max(math.ceil(too_many / drain_rate), _SHORTEST_S), _LONGEST_S)


def _free(folder: Path) -> int:
    while True:
        try:
            return shutil.disk_usage(folder).free
        except FileNotFoundError:  # made at the first write
            folder = folder.parent
