"""What each worker holds of a table, and how the shares make one page."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from models.tables import PartitionState


@dataclass(frozen=True, slots=True)
class Partition:
    """One worker's copy of one partition.

    Attributes
    ----------
    worker : URL of who has it; None where nobody does.
    rows : how many, as RocksDB estimates it; None where nobody can tell, as are the next two.
    size_bytes : on disk and in memory.
    changelog_lag : messages of the changelog that it does not have yet.
    """

    partition: int
    worker: str | None
    state: str
    rows: int | None = None
    size_bytes: int | None = None
    changelog_lag: int | None = None

    def to_wire(self) -> dict[str, Any]:
        return {
            "partition": self.partition,
            "worker": self.worker,
            "state": self.state,
            "rows": self.rows,
            "sizeBytes": self.size_bytes,
            "changelogLag": self.changelog_lag,
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            partition=data["partition"],
            worker=data["worker"],
            state=data["state"],
            rows=data["rows"],
            size_bytes=data["sizeBytes"],
            changelog_lag=data["changelogLag"],
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One row; `value` as it goes over the wire."""

    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class TableShard:
    """What one worker holds: its partitions, and its first rows behind a key, in key order."""

    partitions: Sequence[Partition]
    entries: Sequence[Entry]

    def to_wire(self) -> dict[str, Any]:
        return {
            "partitions": [each.to_wire() for each in self.partitions],
            "entries": [asdict(each) for each in self.entries],
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            [Partition.from_wire(each) for each in data["partitions"]],
            [Entry(each["key"], each["value"]) for each in data["entries"]],
        )


@dataclass(frozen=True, slots=True)
class TablePage:
    """Rows of all workers in key order.

    Attributes
    ----------
    next_after : what continues them; None at the end.
    complete : whether every partition's owner gave its share.
    """

    partitions: Sequence[Partition]
    entries: Sequence[Entry]
    next_after: str | None
    complete: bool


def merged(
    shares: Iterable[TableShard], owners: Mapping[int, str | None], *, limit: int
) -> TablePage:
    """Return one page of what the workers hold.

    Parameters
    ----------
    shares : of the workers that answered, each with up to ``limit + 1`` entries.
    owners : of every partition of the table; None where it has none.
    """
    shares = list(shares)
    held = [each for share in shares for each in share.partitions]
    # A partition that just moved may be in two shares; its rows are the same.
    entries: dict[str, Entry] = {}
    ordered = heapq.merge(*(share.entries for share in shares), key=lambda entry: entry.key)
    for entry in ordered:
        entries.setdefault(entry.key, entry)
        if len(entries) > limit:
            break
    found = list(entries.values())
    owned = {each.partition for each in held if each.state != PartitionState.STANDBY}
    missing = [
        Partition(
            number,
            worker,
            (PartitionState.MOVING if worker is None else PartitionState.UNREACHABLE).value,
        )
        for number, worker in owners.items()
        if number not in owned
    ]
    partitions = sorted(
        [*held, *missing],
        key=lambda each: (each.partition, each.state == PartitionState.STANDBY, each.worker or ""),
    )
    recovering = any(each.state == PartitionState.RECOVERING for each in held)
    return TablePage(
        partitions=partitions,
        entries=found[:limit],
        next_after=found[limit - 1].key if len(found) > limit else None,
        complete=not missing and not recovering,
    )
