"""Damage that keeps the Kafka of this machine from starting, told from all else, and put right.

All that was accepted is in storage: events and rows that go with Kafka's data are made again by an
audit. So what is damaged is put aside by itself, but never without proof that it is why Kafka
ended: it is damaged, and Kafka names it. Kafka also ends where a port is taken or a disk is full,
and every kill leaves something that a start mends.
"""

import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from deeplens_streams.config import Settings
from deeplens_streams.data_check import kafka_log
from deeplens_streams.data_check.damage import NEXT_START, Damage, Look
from deeplens_streams.embedded_kafka.astray import META, log_dirs

_ASIDE = ".damaged-"
#: For how long what was put aside is kept.
KEPT_DAYS = 7
#: What is wrong where an error says so, whatever file it names.
_NO_DAMAGE = re.compile(
    "No space left|Disk quota|Permission denied|Too many open files|Read-only file system"
    "|Input/output error|Address already in use|OutOfMemoryError"
)
#: All that Kafka says of a `partition.metadata` that is empty.
_OF_AN_EMPTY_FILE = 'because "this.text" is null'


class KafkaMending:
    """What can be done, the least first; each is tried once."""

    def __init__(self, settings: Settings) -> None:
        self._look = Look(settings)
        self._folder = settings.data_dir / "kafka"
        self._tried = set[str]()

    def mend(self, errors: Sequence[str]) -> str | None:
        """Do the next that may let Kafka start, and return a sentence; None if there is nothing.

        Parameters
        ----------
        errors : what Kafka has logged as such before it ended.
        """
        if any(_NO_DAMAGE.search(line) for line in errors):
            return None
        named = [each for each in self._walk() if is_named(each, errors)]
        files = [each for each in named if each.mend == kafka_log.REMOVE_FILE]
        if files and self._is_first("files"):
            return self._renew(files)
        cut_off = [each for each in named if _is_mended_by_a_start(each)]
        if cut_off and self._is_first("recovery"):
            # Kafka took its log for whole, as it had stopped in order. It takes the mark of that
            # away before it looks, so the next start looks at all of it, as after a kill.
            return (
                f"Kafka reads its log anew, and cuts off what is no record ({_said(cut_off[0])})."
            )
        data = [each for each in named if not _is_mended_by_a_start(each)]
        if data and self._is_first("data"):
            return self._begin_anew(data[0])
        return None

    def left(self) -> str | None:
        """Return a sentence about damage that stays as it is; None if there is none."""
        found = next((each for each in self._walk() if not _is_mended_by_a_start(each)), None)
        if found is None:
            return None
        return (
            f"Its data stays where it is: a part of it is damaged ({_said(found)}), and Kafka does "
            "not name that as its reason; deeplens doctor --data says what mends it."
        )

    def _walk(self) -> list[Damage]:
        return list(kafka_log.walk(self._look, self._folder))

    def _is_first(self, way: str) -> bool:
        is_first = way not in self._tried
        self._tried.add(way)
        return is_first

    def _renew(self, damages: list[Damage]) -> str:
        for each in damages:
            file = self._look.settings.data_dir / each.path
            self._put_aside(file, f"{file.parent.name}.{file.name}")
        names = ", ".join(each.path for each in damages[:3])
        return f"Kafka makes files anew that it cannot read, which were put aside: {names}."

    def _begin_anew(self, damage: Damage) -> str:
        for name in log_dirs(self._folder):
            self._put_aside(self._folder / name, name)
        return (
            f"Kafka's data is damaged ({_said(damage)}). It was put aside, and Kafka begins "
            "anew; deeplens audit --repair brings back what was under way, and statuses."
        )

    def _put_aside(self, path: Path, name: str) -> None:
        self._forget_old()
        if path.exists():
            path.rename(self._folder / f"{name}{_ASIDE}{time.time_ns()}")

    def _forget_old(self) -> None:
        since = time.time_ns() - KEPT_DAYS * 86_400 * 10**9
        for path in self._folder.glob(f"*{_ASIDE}*"):
            stamp = path.name.rpartition(_ASIDE)[2]
            if stamp.isdecimal() and int(stamp) < since:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_named(damage: Damage, errors: Sequence[str]) -> bool:
    """Tell whether an error names the partition that is damaged, or the file that is of none."""
    path = Path(damage.path)
    is_of_partition = kafka_log.PARTITION.fullmatch(damage.subject)
    name = re.escape(damage.subject if is_of_partition else path.name)
    patterns = [rf"(?<![\w.-]){name}(?![\w-])"]
    if path.name == META:  # of which Kafka names the folder
        patterns.append(rf"not found in (?:\S*/)?{re.escape(path.parent.name)}$")
    if path.name == kafka_log.ABOUT:
        patterns.append(re.escape(_OF_AN_EMPTY_FILE))
    found = re.compile("|".join(patterns))
    return any(found.search(line) for line in errors)


def _is_mended_by_a_start(damage: Damage) -> bool:
    return damage.mend.startswith(NEXT_START)


def _said(damage: Damage) -> str:
    return f"{damage.path}: {damage.detail}"
