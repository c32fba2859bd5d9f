"""Wrong API keys, counted by address."""

import time
from collections import OrderedDict
from typing import Any

from deeplens_streams import api_keys
from deeplens_streams.errors import TooManyFailures

#: Wrong keys from one address in so many seconds, after which others are not even looked at.
MAX_FAILURES, FAILURES_S = 20, 60.0
#: Addresses, and keys that were right, that are remembered.
_REMEMBERED = 10_000


class Failures:
    """Wrong keys by address.

    An address with too many of them is refused for a while, except for keys that were right from
    there before: a stranger behind the same proxy must not lock a client out.
    """

    def __init__(self) -> None:
        self._by_address: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._right: OrderedDict[tuple[str, str], None] = OrderedDict()

    def check(self, address: str, key: str) -> None:
        since, count = self._by_address.get(address, (0.0, 0))
        left = since + FAILURES_S - time.monotonic()
        if (
            count >= MAX_FAILURES
            and left > 0
            and (address, api_keys.digest(key)) not in self._right
        ):
            error = TooManyFailures()
            error.retry_after = int(left) + 1
            raise error

    def note(self, address: str) -> None:
        now = time.monotonic()
        since, count = self._by_address.get(address, (now, 0))
        if now - since > FAILURES_S:
            since, count = now, 0
        _remember(self._by_address, address, (since, count + 1))

    def was_right(self, address: str, key: str) -> None:
        _remember(self._right, (address, api_keys.digest(key)), None)


def _remember(known: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
