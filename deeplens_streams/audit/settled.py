"""What an audit may call stuck: what was still before every stage had read up to it."""

from datetime import UTC, datetime, timedelta
from typing import Protocol

#: What moved within so many seconds may be on its way: an upload has a minute to be stored, and
#: some seconds until its event is sent; the rest is for clocks that differ.
GRACE_S = 120.0


class Watermark(Protocol):
    """How far stages have read."""

    @property
    def read_up_to(self) -> datetime | None:
        """What moved last before it and is not at its end is not on its way any more.

        None while that is not known.
        """


def is_old(moment: datetime, *, at: datetime | None = None) -> bool:
    """Tell whether whatever wrote something then is done with it, or was `at` a time."""
    return (at or datetime.now(UTC)) - moment > timedelta(seconds=GRACE_S)


class SettledBefore:
    """Tells whether something can be under way; it may move behind what `snapshot` has seen."""

    def __init__(self, watermark: Watermark) -> None:
        self._watermark = watermark
        self._before: datetime | None = None

    @property
    def read_up_to(self) -> datetime | None:
        """As `Watermark.read_up_to`, at this moment."""
        return self._watermark.read_up_to

    def snapshot(self) -> None:
        """Note what can be told to be still; to be called before rows are read."""
        at = self._watermark.read_up_to
        self._before = None if at is None else at - timedelta(seconds=GRACE_S)

    def covers(self, moved_at: str) -> bool:
        """Tell whether what moved last at that time (ISO-8601) is certain to have stopped."""
        return self._before is not None and datetime.fromisoformat(moved_at) < self._before
