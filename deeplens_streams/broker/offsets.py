"""Up to where a group has read a partition, and what retention removed before it did."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Partition = TypeVar("Partition", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Removed:
    """Events of a partition that are gone without the group having read them.

    Attributes
    ----------
    committed : the offset that the group had committed; None where Kafka knows of none.
    beginning : the offset that the partition begins with now.
    count : how many were not told of before.
    """

    committed: int | None
    beginning: int
    count: int


def positions(
    committed: Mapping[Partition, int],
    beginnings: Mapping[Partition, int],
    ends: Mapping[Partition, int],
) -> dict[Partition, int]:
    """Return the offset of each partition that its group reads next.

    A partition of which nothing is committed is read from its beginning, and so is one whose
    committed offset it does not have: what retention removed can be read by nobody, and a topic
    that was deleted and made again begins anew.
    """
    found: dict[Partition, int] = {}
    for partition, beginning in beginnings.items():
        offset = committed.get(partition, beginning)
        found[partition] = offset if beginning <= offset <= ends[partition] else beginning
    return found


class RemovedUnread:
    """Tells of each loss once."""

    def __init__(self) -> None:
        #: By partition: the beginning up to which losses were told.
        self._told: dict[Hashable, int] = {}

    def news(
        self, committed: Mapping[Partition, int], beginnings: Mapping[Partition, int]
    ) -> dict[Partition, Removed]:
        """Return what was removed unread since the last call, by partition."""
        found: dict[Partition, Removed] = {}
        for partition, beginning in beginnings.items():
            offset = committed.get(partition)
            known = max(offset or 0, self._told.get(partition, 0))
            if known < beginning:
                found[partition] = Removed(offset, beginning, beginning - known)
                self._told[partition] = beginning
        return found
