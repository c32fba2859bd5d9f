"""Notices while a worker runs that somebody gave a topic another number of partitions."""

from collections.abc import Callable
from typing import Any

from aiokafka.errors import KafkaError
from mode import Service

from deeplens_streams.broker.admin import admin_client
from deeplens_streams.broker.described import partition_counts
from deeplens_streams.broker.partitions import count_fault
from deeplens_streams.broker.topology import CHANGELOGS, TOPICS
from deeplens_streams.config import Settings
from deeplens_streams.errors import DeepLensError

#: Seconds between two looks.
EVERY_S = 10.0
_FIXED = tuple(topic for topic in (*TOPICS, *CHANGELOGS) if topic.is_fixed)


class PartitionWatch(Service):
    """Ends the worker in order, with a sentence, where a table could not go on as it is.

    Until then nothing goes wrong: the transport holds on to the number that is fixed.
    """

    def __init__(
        self,
        settings: Settings,
        refuse: Callable[[str], None],
        *,
        every_s: float = EVERY_S,
        **kwargs: Any,
    ) -> None:
        self._settings, self._refuse, self._every_s = settings, refuse, every_s
        super().__init__(**kwargs)

    @Service.task
    async def _watch(self) -> None:
        while not self.should_stop:
            await self.sleep(self._every_s)
            fault = await self._fault()
            if fault is not None and not self.should_stop:
                self._refuse(fault)
                return

    async def _fault(self) -> str | None:
        try:
            async with admin_client(self._settings) as admin:
                counts = await partition_counts(admin, _FIXED, self._settings.namespace)
        except (DeepLensError, KafkaError, OSError, TimeoutError):
            return None  # Kafka is away, which others say
        faults = (count_fault(topic, n, self._settings.namespace) for topic, n in counts.items())
        return next((fault for fault in faults if fault), None)
