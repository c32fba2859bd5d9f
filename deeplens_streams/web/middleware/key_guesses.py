"""Wrong API keys, counted by address."""

import time
from collections import OrderedDict

from deeplens_streams.errors import TooManyFailures

#: Wrong keys from one address in so many seconds, after which another one is told to stop.
MAX_FAILURES, FAILURES_S = 20, 60.0
#: Addresses that are remembered.
_REMEMBERED = 10_000


class KeyGuessLimit:
    """Wrong keys by address.

    They refuse no right key: nobody guesses 256 random bits, and behind a proxy a stranger has
    the address of everybody else.
    """

    def __init__(self) -> None:
        self._by_address: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def note(self, address: str) -> None:
        """Count a wrong key.

        Raises
        ------
        TooManyFailures
            As many came from the address before, and not long ago.
        """
        now = time.monotonic()
        since, count = self._by_address.get(address, (now, 0))
        left = since + FAILURES_S - now
        if left <= 0:
            since, count = now, 0
        elif count >= MAX_FAILURES:
            error = TooManyFailures()
            error.retry_after = int(left) + 1
            raise error
        self._by_address[address] = (since, count + 1)
        self._by_address.move_to_end(address)
        if len(self._by_address) > _REMEMBERED:
            self._by_address.popitem(last=False)
