"""Up to which moment all is read that was written to Kafka, and all that came of it."""

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime

#: Topics that an event and what comes of it go through, one after the other: an upload, its
#: extraction, its vector, and what is said of it.
HOPS = 4
#: How far apart moments are that are waited for, as a part of how far it is behind. So there are a
#: few hundred of them at the most, also when a stage was down for a week.
_APART = 1 / 64

#: Offsets by partition.
Offsets = Mapping[Hashable, int]


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where each partition ended at a moment.

    Attributes
    ----------
    done : the watermarks at that moment, as `Watermark` has them.
    """

    at: datetime
    ends: Offsets
    done: tuple[datetime | None, ...]


class Watermark:
    """Made of one look at all partitions after the other.

    What was written before a moment is read when offsets beyond the ends of that moment are
    committed. By then what came of it is written, so it is read when the ends of *that* moment
    are passed, and so on. So whatever is on its way at the watermark has been heard of since.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Mark] = deque()
        #: Up to when all is read, and what came of it in one step, in two and so on.
        self._done: tuple[datetime | None, ...] = (None,) * HOPS

    @property
    def at(self) -> datetime | None:
        """None while that is not known."""
        return self._done[-1]

    def note(self, at: datetime, *, ends: Offsets, read: Offsets) -> None:
        """Take a look at all partitions.

        Parameters
        ----------
        at : a moment after `read` was asked for and before `ends` was.
        """
        if _is_passed(ends, read):
            # Nothing is anywhere on its way.
            self._waiting.clear()
            self._done = (at,) * HOPS
            return
        while self._waiting and _is_passed(self._waiting[0].ends, read):
            mark = self._waiting.popleft()
            self._done = (mark.at, *mark.done[:-1])
        if self._waiting:
            behind = at - self._waiting[0].at
            if at - self._waiting[-1].at < behind * _APART:
                return
        self._waiting.append(_Mark(at, ends, self._done))


def _is_passed(ends: Offsets, read: Offsets) -> bool:
    # A partition that is not there any more went with its topic: nothing of it is on its way.
    return all(read.get(partition, end) >= end for partition, end in ends.items())
