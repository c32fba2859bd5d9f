"""What cannot be removed, or read to be removed: named in the log, and no hindrance to the rest."""

import time

import structlog

from deeplens_streams.circuit_breaker import Breakers
from deeplens_streams.errors import DependencyUnavailable
from deeplens_streams.metrics import UNREMOVABLE

log = structlog.get_logger()

#: Things that are named, at the most: where storage refuses all of a kind, they say the same.
MOST = 100
#: Seconds until one that was refused is tried, and named, again by who looks all the time.
REST_S = 3600.0


class Unremovable:
    """Keeps account of what one kind of work could not remove.

    It may be locked, or lie where nobody may write.

    Attributes
    ----------
    count : how many there were since `begin`.
    first : the key of one of them, and why, a sentence; empty while there is none.
    """

    def __init__(self, breakers: Breakers, work: str) -> None:
        self._breakers, self._work = breakers, work
        self._told: dict[str, float] = {}
        self.count, self.first = 0, ""

    def begin(self) -> None:
        """Begin a look at all that there is."""
        self.count, self.first = 0, ""

    def end(self) -> None:
        """Have the metric tell what the look found."""
        UNREMOVABLE.labels(self._work).set(self.count)

    def rests(self, key: str) -> bool:
        """Tell whether this one was refused a short while ago."""
        return time.monotonic() - self._told.get(key, -REST_S) < REST_S

    async def refused(self, key: str, error: DependencyUnavailable) -> None:
        """Name something that could not be removed; the work goes on.

        Raises
        ------
        DependencyUnavailable
            `error`, where it is not this one's fault: what it needs is away.
        """
        if not await self._breakers.is_alone(error):
            raise error
        self.count += 1
        self.first = self.first or f"{key}: {error.message}"
        if len(self._told) >= MOST:  # those that went meanwhile make room
            self._told = {each: at for each, at in self._told.items() if self.rests(each)}
        if key in self._told or len(self._told) < MOST:
            if not self.rests(key):
                self._tell(key, error)
            self._told[key] = time.monotonic()

    def _tell(self, key: str, error: DependencyUnavailable) -> None:
        log.warning(
            "something cannot be removed, and stays; give back the right to, or end its lock",
            work=self._work,
            key=key,
            reason=error.message,
            cause=str(error.__cause__ or "").partition("\n")[0][:300] or None,
        )
