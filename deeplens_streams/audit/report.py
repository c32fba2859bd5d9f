"""What an audit counts and finds."""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from models.status import FINAL_STATES, ImageRow, ImageState

T = TypeVar("T")

#: Images that are looked at together.
PAGE = 200
#: Columns beside those that are called as the state at which a row ended.
ACCEPTED, IN_FLIGHT, UNKNOWN = "accepted", "inFlight", "unknown"


class Fault(StrEnum):
    """What an audit finds."""

    STUCK = "stuck"
    """Accepted and not at its end, and nothing is under way that would bring it there."""
    METADATA_MISSING = "metadata_missing"
    """Its row, its original or its vector is there, and neither metadata object nor tombstone."""
    METADATA_DAMAGED = "metadata_damaged"
    """Its metadata object or its tombstone cannot be read."""
    POINTER_MISSING = "pointer_missing"
    """It is there, and its ID alone does not lead to it."""
    POINTER_DAMAGED = "pointer_damaged"
    """It is there, and its ID leads elsewhere, or to nothing that can be read."""
    COLLECTION_DAMAGED = "collection_damaged"
    """The vector engine has put vectors aside whose files are damaged; searches are refused."""
    VECTOR_MISSING = "vector_missing"
    """Completed, and the vector engine does not have it."""
    THUMBNAIL_MISSING = "thumbnail_missing"
    """Its thumbnail was made, and is not in storage."""
    THUMBNAIL_DAMAGED = "thumbnail_damaged"
    """Its thumbnail is empty, cut, or no JPEG."""
    ORIGINAL_MISSING = "original_missing"
    """Its bytes are not in storage; nothing here can bring them back."""
    ORIGINAL_DAMAGED = "original_damaged"
    """Its bytes are others than were uploaded; nothing here can bring them back."""
    LETTER_MISSING = "letter_missing"
    """Failed, and no dead letter says why."""
    PURGE_UNFINISHED = "purge_unfinished"
    """Deleted, and something of it is left, or its row does not say so."""
    ROW_ORPHANED = "row_orphaned"
    """The status table has it, and it went with its tenant."""
    VECTOR_ORPHANED = "vector_orphaned"
    """The vector engine has it, and the image was deleted."""
    LETTER_ORPHANED = "letter_orphaned"
    """A dead letter waits whose image is gone or has moved on."""
    LETTER_DAMAGED = "letter_damaged"
    """A dead letter that cannot be read."""
    FILE_ORPHANED = "file_orphaned"
    """An original or a thumbnail of an image that was deleted, or never accepted."""
    WRITE_UNFINISHED = "write_unfinished"
    """A killed process left a file, whole or in part, that no listing shows."""
    CLAIM_MISSING = "claim_missing"
    """Nothing that can be read says whose its bytes are: uploaded again, they are another image."""
    CLAIM_ORPHANED = "claim_orphaned"
    """Bytes are said to be an image's that is gone, or nobody can tell whose."""
    POINTER_ORPHANED = "pointer_orphaned"
    """An image ID leads to an image that there never was: its upload was killed."""
    USAGE_WRONG = "usage_wrong"
    """The registry counts for a tenant what is not there, or not all that is."""
    REGISTRY_DAMAGED = "registry_damaged"
    """What storage keeps of a tenant's limits and keys is not there, or cannot be read; or of its
    deletion."""
    OUTDATED = "outdated"
    """Its vector, or what is told of it, is of an older preprocessing. Found only if asked for."""
    UNREADABLE = "unreadable"
    """Something that could not be looked at, whatever is in it; the walk went on behind it."""


_OUTCOMES = (*sorted(state.value for state in ImageState if state in FINAL_STATES), IN_FLIGHT)
#: Of a ledger, in the order in which they are written.
COLUMNS = (ACCEPTED, *_OUTCOMES, UNKNOWN)

#: What mends a fault; it may return what there is to say of the thing that it made.
Repair = Callable[[], Awaitable["Mended | None"]]


@dataclass(frozen=True, slots=True)
class Found:
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

    found: list[Found] = field(default_factory=list)
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
