"""How many requests of one kind a process has under way: more are told to come again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deeplens_streams.errors import DeepLensError


class ConcurrencyLimit:
    """So many at once.

    Parameters
    ----------
    limit : how many.
    refuse : makes the error for those that come meanwhile.

    Attributes
    ----------
    taken : how many are under way.
    """

    def __init__(self, limit: int, refuse: Callable[[], DeepLensError]) -> None:
        self.taken = 0
        self._limit, self._refuse = limit, refuse

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Have one under way.

        Raises
        ------
        DeepLensError
            As many as may be are.
        """
        if self.taken >= self._limit:
            raise self._refuse()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
