"""Reading the topic of tenants, whole and then on, into the registry of this process."""

import contextlib
import time
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from mode import Service

from deeplens_streams.broker import codec
from deeplens_streams.broker.groupless_consumer import RETRY_S, keep_reading
from deeplens_streams.broker.topology import PROGRESS, TENANTS
from deeplens_streams.config import Settings
from deeplens_streams.errors import DeepLensError, RegistryUnavailable
from deeplens_streams.tenancy.recovery import TenantRecovery
from deeplens_streams.tenancy.registry import Registry
from models.tenants import Tenant, TenantChanged

log = structlog.get_logger()

#: How often the use of keys is written down.
_USE_S = 60.0


class RegistryReader(Service):
    """Reads the topic of tenants from its beginning, and goes on reading.

    Parameters
    ----------
    recovery : what storage says of the rows that are read.
    retry_s : seconds before it reads on where Kafka failed it.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        recovery: TenantRecovery,
        *,
        retry_s: float = RETRY_S,
        **kwargs: Any,
    ) -> None:
        self._retry_s = retry_s
        self._registry, self._recovery = registry, recovery
        self._settings = settings
        self._partition = TopicPartition(TENANTS.name(settings.namespace), 0)
        progress = PROGRESS.name(settings.namespace)
        self._progress = [TopicPartition(progress, each) for each in range(PROGRESS.partitions)]
        super().__init__(**kwargs)

    async def on_started(self) -> None:
        # The web server starts behind this one: who can connect finds the tenants known, and who
        # cannot goes to another worker.
        with contextlib.suppress(RegistryUnavailable):
            await self._registry.ready()

    @Service.task
    async def _read(self) -> None:
        await keep_reading(
            self, self._settings, self._take_all, self._note_lost, retry_s=self._retry_s
        )

    def _note_lost(self, error: Exception) -> None:
        self._registry.note_lost()
        log.warning("registry of tenants interrupted", reason=repr(error))

    async def _take_all(self, consumer: AIOKafkaConsumer) -> None:
        """Read the rows there are, and then each change.

        What is known stays as it is until all of them are read: those that come first are old.
        """
        consumer.assign([self._partition])
        await consumer.seek_to_beginning()
        end = (await consumer.end_offsets([self._partition]))[self._partition]
        rows: dict[str, Tenant] = {}
        while not self.should_stop and await consumer.position(self._partition) < end:
            for tenant, row in await self._changes(consumer):
                if row is not None:
                    rows[tenant] = row
                else:
                    rows.pop(tenant, None)
        if not self.should_stop:
            rows = await self._recovery.standing(rows)
            ends = await consumer.end_offsets(self._progress)
            self._recovery.note_ends(rows.values(), {tp.partition: ends[tp] for tp in ends})
            self._registry.replace(rows, from_storage=await self._recovery.missing(rows))
        while not self.should_stop:
            for tenant, row in await self._changes(consumer):
                self._registry.take(tenant, await self._recovery.admitted(tenant, row))

    async def _changes(self, consumer: AIOKafkaConsumer) -> list[tuple[str, Tenant | None]]:
        """Return what comes next, in order: None for a tenant that is gone."""
        found = await consumer.getmany(timeout_ms=200)
        messages = [message for batch in found.values() for message in batch]
        read = (_read(message.key, message.value) for message in messages)
        return [each for each in read if each is not None]

    @Service.task
    async def _write_uses(self) -> None:
        at = time.monotonic()
        while not self.should_stop:
            await self.sleep(1.0)
            if time.monotonic() - at >= _USE_S:
                at = time.monotonic()
                await self._registry.write_uses()

    async def on_stop(self) -> None:
        await self._registry.write_uses()


def _read(key: bytes | None, value: bytes | None) -> tuple[str, Tenant | None] | None:
    """Return what a record of the topic says, or None for one that nobody can read."""
    try:
        if value is None:
            return (key or b"").decode(), None
        row = codec.decode(TenantChanged, value).data
    except (DeepLensError, ValueError) as error:
        log.warning("unreadable row of a tenant", reason=repr(error)[:200])
        return None
    return row.tenantId, row
