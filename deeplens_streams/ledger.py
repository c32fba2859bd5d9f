"""What an audit counts and finds."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from models.status import FINAL_STATES, ImageState

#: Images that are looked at together.
PAGE = 200
#: What moved within so many seconds is on its way.
GRACE_S = 60.0


class Fault(StrEnum):
    """What an audit finds."""

    STUCK = "stuck"
    """Accepted and not at its end, and nothing is under way that would bring it there."""
    VECTOR_MISSING = "vector_missing"
    """Completed, and the vector engine does not have it."""
    ORIGINAL_MISSING = "original_missing"
    """Its bytes are not in storage; nothing here can bring them back."""
    LETTER_MISSING = "letter_missing"
    """Failed, and no dead letter says why."""
    PURGE_UNFINISHED = "purge_unfinished"
    """Deleted, and something of it is left."""
    VECTOR_ORPHANED = "vector_orphaned"
    """The vector engine has it, and there is no such image."""
    LETTER_ORPHANED = "letter_orphaned"
    """A dead letter waits whose image is gone or has moved on."""
    FILE_ORPHANED = "file_orphaned"
    """An original or a thumbnail of no image."""
    CLAIM_ORPHANED = "claim_orphaned"
    """Bytes are said to be an image's that is gone."""


Repair = Callable[[], Awaitable[None]]
#: A fault, what there is to say of it, and what mends it.
Found = tuple[Fault, str, Repair | None]


@dataclass(slots=True)
class Ledger:
    """Of one tenant, or of all."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    repaired: int = 0

    def add(self, other: "Ledger") -> None:
        self.counts += other.counts
        self.faults += other.faults
        self.repaired += other.repaired

    def as_wire(self) -> dict[str, Any]:
        names = [state.value for state in ImageState if state in FINAL_STATES]
        counts = {name: self.counts[name] for name in ("accepted", *sorted(names), "inFlight")}
        balanced = counts["accepted"] == sum(counts.values()) - counts["accepted"]
        return {
            **counts,
            "unknown": self.counts["unknown"],
            "balanced": balanced and not self.counts["unknown"],
            "faults": dict(self.faults),
            "repaired": self.repaired,
        }
