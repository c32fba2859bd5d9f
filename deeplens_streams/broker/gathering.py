"""Records gather before they are sent and read, and those of a lone picture do not wait.

A Kafka producer's `linger` has every record wait for company, also the one that comes alone, at
each step of a picture's way. Here a few requests follow one another at once, as many as one picture
is after another, and only where more and more comes is there one at a time, at a pace.
"""

import time
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import MessageAccumulator

from deeplens_streams.broker.replaced_methods import require

#: Seconds between two reads while there is something to read: messages gather meanwhile.
READ_EVERY_S = 0.02
#: Requests that follow one another at once behind a silence.
AT_ONCE = 6

require(
    "aiokafka",
    MessageAccumulator,
    drain_by_nodes=("ignore_nodes", "muted_partitions"),
    _append_batch=("builder", "tp"),
)


class Pace:
    """How long to rest behind each request, so that there is one each `every_s` and no more.

    A few go without a rest, and as many again behind a silence.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._next_at = 0.0

    def rest_s(self) -> float:
        """Note a request, and return the seconds until the next one is due."""
        now = time.monotonic()
        self._next_at = max(self._next_at, now) + self._every_s
        return max(0.0, self._next_at - now - AT_ONCE * self._every_s)


def rest_between_requests(producer: AIOKafkaProducer, every_s: float) -> None:
    """Have a producer keep a `Pace`: what comes while it rests goes together behind it.

    A batch that is full goes at once all the same.

    Parameters
    ----------
    every_s : seconds; the rest takes the place of the producer's `linger_ms`.
    """
    accumulator = producer._message_accumulator  # noqa: SLF001 - aiokafka has no other place for it
    append, drain = accumulator._append_batch, accumulator.drain_by_nodes  # noqa: SLF001
    pace, rests_until = Pace(every_s), 0.0

    def append_batch(*args: Any) -> Any:
        accumulator._linger_time = max(0.0, rests_until - time.monotonic())  # noqa: SLF001
        return append(*args)

    def drain_by_nodes(*args: Any, **kwargs: Any) -> Any:
        nonlocal rests_until
        batches, unknown_leaders = drain(*args, **kwargs)
        if batches:
            rests_until = time.monotonic() + pace.rest_s()
        return batches, unknown_leaders

    accumulator._append_batch = append_batch  # noqa: SLF001
    accumulator.drain_by_nodes = drain_by_nodes
