"""Damage that keeps the Kafka of this machine from starting, told from all else, and put right.

All that was accepted is in storage: events and rows that go with Kafka's data are made again by an
audit. So what is damaged is put aside by itself, but never without proof that it is: Kafka also
ends where a port is taken or a disk is full.
"""

import shutil
import time
from pathlib import Path

from deeplens_streams.config import Settings
from deeplens_streams.data_check import kafka_log
from deeplens_streams.data_check.damage import NEXT_START, Damage, Look
from deeplens_streams.kafka.astray import log_dirs

_ASIDE = ".damaged-"
#: For how long what was put aside is kept.
KEPT_DAYS = 7


class KafkaMending:
    """What can be done, the least first; each is tried once."""

    def __init__(self, settings: Settings) -> None:
        self._look = Look(settings)
        self._folder = settings.data_dir / "kafka"
        self._has_removed = self._has_moved = False

    def mend(self) -> str | None:
        """Do the next that may let Kafka start, and return a sentence; None if there is nothing."""
        found = kafka_log.walk(self._look, self._folder)
        # Every kill leaves some that a start mends: they are no reason for one that fails.
        damages = [each for each in found if not each.mend.startswith(NEXT_START)]
        data = self._look.settings.data_dir
        files = [data / each.path for each in damages if each.mend == kafka_log.REMOVE_FILE]
        if files and not self._has_removed:
            self._has_removed = True
            for file in files:
                file.unlink(missing_ok=True)
            names = ", ".join(self._look.name(file) for file in files[:3])
            return f"Files of Kafka were damaged and go, it makes them anew: {names}."
        if not self._has_moved and (damages or self._has_removed):
            self._has_moved = True
            self._move()
            return (
                f"Kafka's data is damaged ({_named(damages)}). It was put aside, and Kafka begins "
                "anew; deeplens audit --repair brings back what was under way, and statuses."
            )
        return None

    def _move(self) -> None:
        self._forget_old()
        stamp = time.time_ns()
        for name in log_dirs(self._folder):
            path = self._folder / name
            if path.exists():
                path.rename(Path(f"{path}{_ASIDE}{stamp}"))

    def _forget_old(self) -> None:
        """Remove what was put aside long ago, and of what is younger all but the first.

        That has the most: what is put aside behind it had begun anew.
        """
        kept = {path: _put_at(path) for path in self._folder.glob(f"*{_ASIDE}*")}
        since = time.time_ns() - KEPT_DAYS * 86_400 * 10**9
        first = min((at for at in kept.values() if at >= since), default=None)
        for path, at in kept.items():
            if at != first:
                shutil.rmtree(path)


def _put_at(path: Path) -> int:
    stamp = path.name.rpartition(_ASIDE)[2]
    return int(stamp) if stamp.isdecimal() else 0


def _named(damages: list[Damage]) -> str:
    first = next(iter(damages), None)
    return "it does not start" if first is None else f"{first.path}: {first.detail}"
