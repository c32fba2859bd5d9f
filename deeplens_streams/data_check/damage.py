"""What a look at a data folder finds."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from deeplens_streams.config import Settings

RESTORE = "deeplens restore BACKUP --into-existing, then deeplens audit --repair"
REPAIR = "deeplens audit --repair, when the system runs"
NEXT_START = "nothing: the next start mends it"


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it must be.

    Attributes
    ----------
    part : ``images``, ``tables``, ``kafka`` or ``vectors``.
    path : below the data folder, or absolute.
    kind : a word for programs.
    subject : the image or the partition that it is about, where that can be told.
    mend : the command that mends it, or what else does.
    """

    part: str
    path: str
    kind: str
    detail: str
    mend: str
    subject: str = ""


@dataclass(slots=True)
class Look:
    """How far a look is.

    Attributes
    ----------
    looked : objects, rows, batches and points that were read.
    left_out : what could not be looked at, a sentence each.
    """

    settings: Settings
    part: str = ""
    looked: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)

    def name(self, path: Path) -> str:
        """Return a path as it is shown."""
        folder = self.settings.data_dir
        return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


#: Looks at one part, and yields what is damaged.
Check = Callable[[Look], AsyncIterator[Damage]]
