"""What is shown while objects are copied or looked at, and at the end."""

import threading
from types import TracebackType
from typing import Self

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from deeplens_streams.backup.copying import Counts, Finding
from deeplens_streams.backup.errors import BackupDamaged
from deeplens_streams.cli import console

_EVERY_S = 0.5
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_STEP = 1000


class Shown:
    """Counts on a terminal while it lasts; findings as they come.

    Attributes
    ----------
    counts : to be counted up by who does the work.
    """

    def __init__(self, done: str, *, as_json: bool) -> None:
        self.counts = Counts()
        self._done, self._as_json = done, as_json
        self._err = console.err()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=self._err,
            disable=not self._err.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> Self:
        self._progress.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._progress.stop()

    def _show(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._progress.update(self._task, description=self._so_far())

    def _so_far(self) -> str:
        counts = self.counts
        copied = f", {count_and_size(counts.copied, counts.bytes)} written" if counts.copied else ""
        return f"{counts.looked} {self._done}{copied}"

    def tell(self, finding: Finding) -> None:
        """Print a finding."""
        if self._as_json:
            said = {"key": finding.key, "fault": finding.fault, "detail": finding.detail}
            console.print_json({"type": "finding", **said})
        else:
            line = f"{finding.key}: {finding.fault}, {finding.detail}"
            self._err.print(line, soft_wrap=True)

    def end(self, sentence: str, then: str) -> None:
        """Print what came of it.

        Parameters
        ----------
        then : what is said beside how many things are wrong.

        Raises
        ------
        BackupDamaged
            Something was found.
        """
        counts, faults = self.counts, dict(self.counts.faults)
        if self._as_json:
            said = {"looked": counts.looked, "copied": counts.copied, "bytes": counts.bytes}
            total = {**said, "removed": counts.removed, "faults": faults}
            console.print_json({"type": "total", **total})
        else:
            console.out().print(f"{sentence}.", soft_wrap=True)
        if faults:
            things = ", ".join(f"{count} {fault}" for fault, count in sorted(faults.items()))
            raise BackupDamaged(f"{things}; {then}.")


def count_and_size(count: int, size: int) -> str:
    """Return how many objects of how many bytes in words: ``3 objects of 1.5 MB``."""
    value, unit = float(size), 0
    while value >= _STEP and unit < len(_UNITS) - 1:
        value, unit = value / _STEP, unit + 1
    number = f"{value:.1f}" if unit else f"{size}"
    return f"{count} {'object' if count == 1 else 'objects'} of {number} {_UNITS[unit]}"
