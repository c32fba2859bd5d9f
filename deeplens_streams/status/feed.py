"""Every change of every status row, read by each api process without a consumer group."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import orjson
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from mode import Service

from deeplens_streams.broker import codec
from deeplens_streams.broker.gathering import READ_EVERY_S, Pace
from deeplens_streams.broker.groupless_consumer import keep_reading
from deeplens_streams.broker.topology import STATUS
from deeplens_streams.config import Settings
from deeplens_streams.errors import DeepLensError
from deeplens_streams.status.outages import Outages
from models.status import FINAL_STATES, ImageRow, ImageStatusChanged, StepStatus

log = structlog.get_logger()

#: Changes that one watcher may leave unread; rows are whole, so older ones can go.
_QUEUE_SIZE = 64
_RETRYING = f'"{StepStatus.RETRYING}"'.encode()


class KafkaStatusFeed(Service):
    """Reads the status topic from its end and hands each row to whoever watches it.

    Attributes
    ----------
    outages : what pictures wait for, as the rows tell.
    """

    def __init__(self, settings: Settings, **kwargs: Any) -> None:
        self._settings = settings
        self._watchers: dict[str, set[asyncio.Queue[ImageRow]]] = defaultdict(set)
        self._listeners: list[Callable[[ImageRow], None]] = []
        self.outages = Outages()
        super().__init__(**kwargs)

    def subscribe(self, image_id: str) -> AbstractAsyncContextManager[asyncio.Queue[ImageRow]]:
        """Receive the changes of one image from now on."""
        return self._subscription(image_id)

    @asynccontextmanager
    async def _subscription(self, image_id: str) -> AsyncIterator[asyncio.Queue[ImageRow]]:
        queue: asyncio.Queue[ImageRow] = asyncio.Queue(_QUEUE_SIZE)
        self._watchers[image_id].add(queue)
        try:
            yield queue
        finally:
            watchers = self._watchers[image_id]
            watchers.discard(queue)
            if not watchers:
                del self._watchers[image_id]

    def on_change(self, listener: Callable[[ImageRow], None]) -> None:
        """Call `listener` with every row that reached its end, and those that are watched."""
        self._listeners.append(listener)

    def _partitions(self) -> list[TopicPartition]:
        name = STATUS.name(self._settings.namespace)
        return [TopicPartition(name, number) for number in range(STATUS.partitions)]

    @Service.task
    async def _read(self) -> None:
        await keep_reading(
            self,
            self._settings,
            self._hand_out_all,
            lambda error: log.warning("status feed interrupted", reason=repr(error)),
        )

    async def _hand_out_all(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(self._partitions())
        await consumer.seek_to_end()
        pace = Pace(READ_EVERY_S)
        while not self.should_stop:
            found = await consumer.getmany(timeout_ms=1000)
            for messages in found.values():
                for message in messages:
                    self._hand_out(message.value)
            if found:
                await asyncio.sleep(pace.rest_s())

    def _hand_out(self, value: bytes | None) -> None:
        if value is None:
            return  # a tombstone: the row is gone
        try:
            # Most rows are of pictures that nobody watches: a look is enough.
            data = orjson.loads(value)["data"]
            if self.outages.are_any or _RETRYING in value:
                self.outages.look(data)
            if data["imageId"] not in self._watchers and data["status"] not in FINAL_STATES:
                return
            row = codec.decode(ImageStatusChanged, value).data
        except (DeepLensError, ValueError, LookupError, TypeError, AttributeError) as error:
            log.warning("unreadable status message", reason=repr(error)[:200])
            return
        for listener in self._listeners:
            listener(row)
        for queue in self._watchers.get(row.imageId, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(row)
