"""Records gather before they are sent, and the first after a silence does not wait.

A Kafka producer's `linger` has every record wait for company, also the one that comes alone, at
each step of a picture's way. Here what waits is what comes within a while of the last request. A
reader rests between its reads for the same reason, but not in the few that a lone picture is.
"""

import time
from typing import Any

from aiokafka import AIOKafkaProducer

#: Seconds between two reads while there is something to read: messages gather meanwhile.
READ_EVERY_S = 0.03
#: Reads that follow one another at once behind a silence: a picture's reports come in three.
_AT_ONCE = 4


class Reads:
    """How long a reader rests behind each read that brought something."""

    def __init__(self, every_s: float | None = None) -> None:
        self._every_s = READ_EVERY_S if every_s is None else every_s
        self._next_at = 0.0

    def rest_s(self) -> float:
        """Note a read, and return the seconds until the next one is due."""
        now = time.monotonic()
        self._next_at = max(self._next_at, now) + self._every_s
        return max(0.0, self._next_at - now - _AT_ONCE * self._every_s)


def rest_between_requests(producer: AIOKafkaProducer, rest_s: float) -> None:
    """Have a producer rest behind each request, so that records gather meanwhile.

    A batch that is full goes at once all the same.

    Parameters
    ----------
    rest_s : seconds; it takes the place of the producer's `linger_ms`.
    """
    accumulator = producer._message_accumulator  # noqa: SLF001 - aiokafka has no other place for it
    append, pop = accumulator._append_batch, accumulator._pop_batch  # noqa: SLF001
    rests_until = 0.0

    def append_batch(*args: Any) -> Any:
        accumulator._linger_time = max(0.0, rests_until - time.monotonic())  # noqa: SLF001
        return append(*args)

    def pop_batch(*args: Any) -> Any:
        nonlocal rests_until
        rests_until = time.monotonic() + rest_s
        return pop(*args)

    accumulator._append_batch, accumulator._pop_batch = append_batch, pop_batch  # noqa: SLF001
