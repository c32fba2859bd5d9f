"""How long pictures take, measured from those that were just done."""

import time
from collections import deque
from datetime import UTC, datetime
from statistics import median

from deeplens_streams.timestamps import parse_time
from models.status import ImageRow, ImageState

#: Pictures that the estimate looks back at, and for how long one counts.
_KEPT = 100
_FRESH_S = 900.0
_DONE = {ImageState.COMPLETED, ImageState.PARTIAL}


class Estimates:
    """Durations from upload to searchable of recent pictures; listens to the status feed."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, str, float]] = deque(maxlen=_KEPT)

    def watch(self, row: ImageRow) -> None:
        """Note a row; only first generations count, a retry starts much later."""
        if row.status not in _DONE or row.generation != 1 or row.searchableAfter is None:
            return
        if any(image_id == row.imageId for _, image_id, _ in self._recent):
            return
        begun, done = parse_time(row.uploadedAt), parse_time(row.searchableAfter)
        if begun is None or done is None:
            return
        age = (datetime.now(UTC) - done).total_seconds()
        took = (done - begun).total_seconds()
        if took >= 0 and age < _FRESH_S:
            self._recent.append((time.monotonic() - max(age, 0.0), row.imageId, took))

    def total(self) -> float | None:
        """Return the seconds that a picture takes at present, or None if nothing was measured."""
        return self.remaining(0.0)

    def remaining(self, elapsed: float) -> float | None:
        """Return the seconds left for a picture that is `elapsed` seconds under way.

        It is the median of those that took longer; None if none did.
        """
        oldest = time.monotonic() - _FRESH_S
        longer = [took for at, _, took in self._recent if at > oldest and took >= elapsed]
        return round(max(0.0, median(longer) - elapsed), 3) if longer else None
