"""How many requests of one kind this process has under way: more are told to come again."""

from collections.abc import Iterator
from contextlib import contextmanager

from deeplens_streams.errors import TooManyRequests


class Turns:
    """So many at once.

    Parameters
    ----------
    limit : how many.
    refusal : what is said to those that come meanwhile.

    Attributes
    ----------
    taken : how many are under way.
    """

    def __init__(self, limit: int, refusal: str) -> None:
        self.taken = 0
        self._limit, self._refusal = limit, refusal

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have one under way.

        Raises
        ------
        TooManyRequests
            As many as may be are.
        """
        if self.taken >= self._limit:
            raise TooManyRequests(self._refusal)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
