"""What an audit looks at of tenants' usage: whether the registry counts what there is.

A picture counts from one offset of the progress topic on, and no more from another one on; its row
has both, and the tenant's row up to where it has counted. So what the sum should be is told at any
moment from the rows, whatever comes and goes meanwhile: what is counted later is told apart, and a
correction is a difference, which stays right until it is applied.
"""

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from aiokafka.partitioner import murmur2

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.guard import judged
from deeplens_streams.audit.report import Finding, Ledger
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import PROGRESS, TENANT_CHANGES
from deeplens_streams.storage.image_objects import DamagedMetadata
from models.audit import Fault
from models.images import StoredImage
from models.status import ImageProgress, ImageProgressData, ImageRow, ImageState
from models.tenants import (
    SYSTEM,
    ChangeKind,
    Tenant,
    TenantChange,
    TenantChangeData,
    TenantState,
    Usage,
)


class Registry(Protocol):
    """What is used of the registry of tenants."""

    @property
    def is_current(self) -> bool:
        """Whether every row was read, and each change of one is."""

    def rows(self) -> list[Tenant]: ...


@dataclass(slots=True)
class _Counting:
    """What the rows of one tenant's pictures come to.

    Attributes
    ----------
    row : of the tenant, as it was before they were read.
    """

    row: Tenant
    sum: Usage = field(default_factory=Usage)

    def add(self, row: ImageRow, partition: str, *, is_still: bool) -> None:
        """Add a picture as far as the tenant's row should have counted it."""
        if row.countedAt is None:
            return  # nor does it count when it goes
        counted = self.row.counted.get(partition, -1)
        sign = 0
        for offset, step in ((row.countedAt, 1), (row.uncountedAt, -1)):
            # What stopped moving long ago is counted, or is of a topic that was lost.
            if offset is not None and (is_still or offset <= counted):
                sign += step
        self.sum.images += sign
        self.sum.bytes += sign * (row.fileSize or 0)


class UsageRecount:
    """Compares the registry's sums with the rows of pictures that count for them."""

    def __init__(self, context: AuditContext, registry: Registry | None) -> None:
        self._services, self._publish = context.services, context.publish
        self._all_rows, self._registry = context.all_rows, registry
        self._settled = context.settled_before()

    async def walk(
        self, tenants: Collection[str] | None, ledger: Ledger
    ) -> AsyncGenerator[Finding]:
        """Yield each sum that is wrong, and each picture that is in none.

        Nothing is said while nobody knows what is under way.

        Parameters
        ----------
        tenants : whose; None for all.
        """
        registry = self._registry
        # In this order: what stopped moving before that is in the sums, if it is in any.
        self._settled.snapshot()
        if registry is None or not registry.is_current or self._settled.read_up_to is None:
            return
        countings = {
            row.tenantId: _Counting(row)
            for row in registry.rows()
            if row.state != TenantState.DELETING
            and row.tenantId != SYSTEM
            and (tenants is None or row.tenantId in tenants)
        }
        if not countings:
            return
        async with aclosing(self._all_rows()) as pages:
            async for page in pages:
                ledger.checked += len(page)
                for row in page:
                    if isinstance(row, ImageRow) and row.tenantId in countings:
                        work = self._added(countings[row.tenantId], row)
                        key = f"row {row.imageId}"
                        for found in await judged(key, row.imageId, work, self._services):
                            yield replace(found, tenant=row.tenantId)
        for counting in countings.values():
            difference = self._compared(counting)
            if difference is not None:
                yield difference

    async def _added(self, counting: _Counting, row: ImageRow) -> list[Finding]:
        is_still = self._settled.covers(row.lastUpdated)
        counting.add(row, progress_partition(row.imageId), is_still=is_still)
        if row.countedAt is not None or not is_still or row.status == ImageState.DELETED:
            return []
        try:
            # By its ID alone: such a row may name another time than the image.
            image = await self._services.storage.get_metadata(
                tenant=row.tenantId, image_id=row.imageId
            )
        except DamagedMetadata:
            return []
        if image is None:
            return []
        detail = "it does not count for its tenant"

        async def repair() -> None:
            await self._publish(_counts(row, image))

        return [Finding(row.imageId, Fault.USAGE_WRONG, detail, repair)]

    def _compared(self, counting: _Counting) -> Finding | None:
        row, there = counting.row, counting.sum
        images, size = there.images - row.usage.images, there.bytes - row.usage.bytes
        if not images and not size:
            return None
        data = TenantChangeData(
            kind=ChangeKind.RECOUNT.value,
            createdAt=row.createdAt,
            recounts=row.recounts,
            images=images,
            bytes=size,
        )

        async def repair() -> None:
            await self._publish(Message(TENANT_CHANGES, TenantChange.new(row.tenantId, data)))

        detail = (
            f"the registry has {row.usage.images:,} images, {row.usage.bytes:,} bytes; "
            f"there are {there.images:,}, {there.bytes:,}"
        )
        return Finding("", Fault.USAGE_WRONG, detail, repair, row.tenantId)


def progress_partition(image_id: str) -> str:
    """Return the partition of the progress topic that an image's events are on, as Kafka has it."""
    return str((murmur2(image_id.encode()) & 0x7FFF_FFFF) % PROGRESS.partitions)


def _counts(row: ImageRow, image: StoredImage) -> Message:
    """Return what has a picture count from now on."""
    data = ImageProgressData(
        imageId=row.imageId, reports=[], uploadedAt=image.uploadedAt, fileSize=image.fileSize
    )
    return Message(PROGRESS, ImageProgress.following(row, data))
