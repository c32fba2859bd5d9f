"""Keeping Kafka's registry of tenants and what storage keeps of it alike: each mends the other."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from mode import Service

from deeplens_streams.broker.topics import Message, Publish
from deeplens_streams.broker.topology import DELETED, TENANT_CHANGES
from deeplens_streams.errors import DependencyUnavailable
from deeplens_streams.services import Services
from deeplens_streams.storage.tenant_records import DamagedRecord, Verdict
from deeplens_streams.tenancy.recovery import TenantRecovery
from models.deletion import ImageDeleted, ImageDeletedData
from models.events import derived_id
from models.tenants import (
    ChangeKind,
    Tenant,
    TenantChange,
    TenantChangeData,
    TenantRecord,
    TenantState,
    record_of,
)

log = structlog.get_logger()


class Rows(Protocol):
    """What is used of the registry of tenants."""

    @property
    def is_current(self) -> bool: ...

    @property
    def provisional(self) -> frozenset[str]: ...

    def rows(self) -> list[Tenant]: ...

    def find(self, tenant: str) -> Tenant | None: ...

    def take(self, tenant: str, row: Tenant | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds.

    Attributes
    ----------
    settle : between two looks at what storage did not take, and at what Kafka lost.
    first : before the first look at all that storage keeps.
    look : between two of these.
    """

    settle: float = 2.0
    first: float = 20.0
    look: float = 600.0


class TenantReconciler(Service):
    """Of one api process; that others do the same costs no more than a repetition."""

    def __init__(
        self,
        registry: Rows,
        recovery: TenantRecovery,
        services: Services,
        publish: Publish,
        timings: Timings = Timings(),
        **kwargs: Any,
    ) -> None:
        self._registry, self._recovery, self._publish = registry, recovery, publish
        self._records, self._tombstones = services.tenant_records, services.tombstones
        self._timings = timings
        super().__init__(**kwargs)

    @Service.task
    async def _settle(self) -> None:
        while not self.should_stop:
            await self.sleep(self._timings.settle)
            await self._surely(self.settle)

    @Service.task
    async def _look(self) -> None:
        await self.sleep(self._timings.first)
        while not self.should_stop:
            await self._surely(self.look)
            await self.sleep(self._timings.look)

    async def _surely(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except DependencyUnavailable:
            return  # its breaker has said so; it is done the next time
        except Exception:
            log.exception("tenants cannot be compared with what storage keeps of them")

    async def settle(self) -> None:
        """Do what is known to be left: in storage, and in Kafka.

        Raises
        ------
        DependencyUnavailable
            The rest is left to the next time.
        """
        await self._records.settle()
        if not self._registry.is_current:
            return
        if self._recovery.is_unjudged:
            await self._judge_again()
        for tenant in sorted(self._registry.provisional):
            row = self._registry.find(tenant)
            if row is not None:
                await self._restore(record_of(row))
        for tenant, marks in list(self._recovery.lost_marks.items()):
            row = self._registry.find(tenant)
            if row is not None:
                data = TenantChangeData(
                    kind=ChangeKind.RECOUNT.value, createdAt=row.createdAt, marks=marks
                )
                await self._tell(tenant, data)
            del self._recovery.lost_marks[tenant]

    async def _judge_again(self) -> None:
        rows = {row.tenantId: row for row in self._registry.rows()}
        standing = await self._recovery.standing(rows)
        for gone in rows.keys() - standing.keys():
            self._registry.take(gone, None)

    async def look(self) -> None:
        """Compare all rows with all that is kept of them.

        Raises
        ------
        DependencyUnavailable
            The rest is left to the next time.
        """
        if not self._registry.is_current:
            return
        kept = await self._records.tenants()
        for row in self._registry.rows():
            if row.tenantId not in kept and await self._records.judge(row) is Verdict.STANDS:
                await self._records.put(record_of(row))
        for tenant in sorted(kept):
            await self._compare(tenant)

    async def _compare(self, tenant: str) -> None:
        known = self._registry.find(tenant)
        row = None if known is None else record_of(known)
        try:
            record = await self._records.find(tenant)
        except DamagedRecord:
            if row is not None:
                await self._records.put(row)
            return
        if record is None:  # removed meanwhile
            return
        verdict = await self._records.judge(record)
        if verdict is Verdict.UNKNOWN:
            return
        if verdict is Verdict.GONE:
            await self._records.remove(tenant, created_at=record.createdAt)
        elif row is None or record.order > row.order:
            await self._restore(record)
        elif record.order < row.order:
            await self._records.put(row)

    async def _restore(self, record: TenantRecord) -> None:
        """Have a tenant's row be what is kept of it; of one that was being deleted, go on."""
        await self._tell(record.tenantId, TenantChangeData(kind=ChangeKind.RESTORE.value))
        if record.state != TenantState.DELETING:
            return
        purge = await self._tombstones.find_purge(tenant=record.tenantId)
        if purge is not None and purge.completedAt is None:
            event_id = derived_id("purge", record.tenantId, purge.requestedAt)
            event = ImageDeleted.new(
                record.tenantId,
                ImageDeletedData(),
                eventId=event_id,
                correlationId=event_id,
                timestamp=purge.requestedAt,
            )
            await self._publish(Message(DELETED, event))

    async def _tell(self, tenant: str, data: TenantChangeData) -> None:
        await self._publish(Message(TENANT_CHANGES, TenantChange.new(tenant, data)))
