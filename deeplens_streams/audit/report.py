"""What an audit counts and finds."""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from models.audit import Fault
from models.status import FINAL_STATES, ImageRow, ImageState

T = TypeVar("T")

#: Images that are looked at together.
PAGE = 200
#: Columns beside those that are called as the state at which a row ended.
ACCEPTED, IN_FLIGHT, UNKNOWN = "accepted", "inFlight", "unknown"


_OUTCOMES = (*sorted(state.value for state in ImageState if state in FINAL_STATES), IN_FLIGHT)
#: Of a ledger, in the order in which they are written.
COLUMNS = (ACCEPTED, *_OUTCOMES, UNKNOWN)

#: What mends a fault; it may return what there is to say of the thing that it made.
Repair = Callable[[], Awaitable["Mended | None"]]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with an image, what there is to say of it, and what mends it.

    Attributes
    ----------
    repair : None where nothing does; it may raise `NotRepaired`.
    tenant : where it is another than the one that is looked at.
    """

    image_id: str
    fault: Fault
    detail: str
    repair: Repair | None = None
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class Mended:
    """What there is to say of something that a repair made.

    Attributes
    ----------
    found : what is wrong with it.
    note : what nobody can tell of it, a sentence's end.
    """

    found: list[Finding] = field(default_factory=list)
    note: str | None = None


class NotRepaired(Exception):
    """Why a fault stays, and what a person can do: a sentence."""


def column(row: ImageRow) -> str:
    """Return where the image of a row counts."""
    return row.status if row.status in FINAL_STATES else IN_FLIGHT


class Rows(Protocol):
    """What is used of the status table, as seen from any worker."""

    async def rows(self, image_ids: list[str]) -> dict[str, ImageRow]: ...


async def rows_of(rows: Rows, tenant: str, image_ids: list[str]) -> dict[str, ImageRow]:
    """Return the rows of a tenant's images; one that names another tenant is none."""
    found = await rows.rows(image_ids)
    return {image_id: row for image_id, row in found.items() if row.tenantId == tenant}


async def pages_of(items: AsyncGenerator[T], size: int = PAGE) -> AsyncGenerator[list[T]]:
    """Yield items in lists of `size`."""
    page: list[T] = []
    async with aclosing(items):
        async for item in items:
            page.append(item)
            if len(page) == size:
                yield page
                page = []
    if page:
        yield page


@dataclass(slots=True)
class Ledger:
    """Of one tenant, or of all.

    What was accepted is what storage has, and what became of it is what the status table says:
    the two are equal only where nothing is missing on either side.

    Attributes
    ----------
    checked : objects and rows that were looked at.
    outdated : completed images whose vector, or facts, an older preprocessing made.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    repaired: int = 0
    checked: int = 0
    outdated: int = 0

    def accept(self, outcome: str) -> None:
        """Count an image that storage has."""
        self.counts[ACCEPTED] += 1
        self.counts[outcome] += 1

    def settle(self, outcome: str) -> None:
        """Count an image of which nothing was known where its repair brings it."""
        self.counts[UNKNOWN] -= 1
        self.counts[outcome] += 1

    def forget(self) -> None:
        """Take back an image of which nothing was known: its repair has it counted as it is."""
        self.counts[UNKNOWN] -= 1
        self.counts[ACCEPTED] -= 1

    def add(self, other: "Ledger") -> None:
        self.counts += other.counts
        self.faults += other.faults
        self.repaired += other.repaired
        self.outdated += other.outdated

    def as_wire(self) -> dict[str, Any]:
        accepted, unknown = self.counts[ACCEPTED], self.counts[UNKNOWN]
        known = sum(self.counts[name] for name in _OUTCOMES)
        return {
            **{name: self.counts[name] for name in COLUMNS},
            "balanced": accepted == known and not unknown,
            "faults": dict(self.faults),
            "repaired": self.repaired,
            "outdated": self.outdated,
        }
