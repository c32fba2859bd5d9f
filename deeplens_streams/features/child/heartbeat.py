"""Whether a child process answers, also where it has nothing to do."""

from deeplens_streams.errors import ExtractorUnavailable


class Heartbeat:
    """Pings of one child, one at a time.

    Time is counted in looks: while the whole machine stands still, there are none.

    Parameters
    ----------
    look_s : seconds between two calls of `look`.
    idle_s : after which a ping without an answer is one too many. The child answers beside
        decoding and inference.
    busy_s : the same while it has work, since a decoder may hold the interpreter for a while; it is
        ended for its work by other limits.
    """

    def __init__(self, *, look_s: float, idle_s: float, busy_s: float) -> None:
        self._look_s, self._idle_s, self._busy_s = look_s, idle_s, busy_s
        self._last = 0
        self._is_waiting = False
        self._looks = 0

    @property
    def silent_s(self) -> float:
        """How long the present ping has been without an answer."""
        return self._looks * self._look_s

    def restart(self) -> None:
        """Forget what was asked of a process that is gone."""
        self._is_waiting, self._looks = False, 0

    def look(self) -> int | None:
        """Return the number of the ping that is to be sent now, or None while one is unanswered."""
        if self._is_waiting:
            self._looks += 1
            return None
        self._last += 1
        self._is_waiting = True
        return self._last

    def answered(self, number: int) -> None:
        """Take an answer; one that a former process was asked for is none."""
        if number == self._last:
            self.restart()

    def check(self, *, is_busy: bool) -> None:
        """Raise `ExtractorUnavailable` where the process has not answered for too long."""
        if self.silent_s > (self._busy_s if is_busy else self._idle_s):
            raise ExtractorUnavailable(
                f"The model's process has not answered for {self.silent_s:.0f} s: it is stopped "
                "or hangs."
            )
