"""Forgetting deleted images after a while: their rows, pointers and tombstones.

A tombstone is the proof of a deletion, and what tells a late event that its image is gone. Longer
than any event is kept it tells nobody anything, and every one that there ever was would be
listed, counted and held for ever.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from mode import Service

from deeplens_streams.broker.topics import Publish
from deeplens_streams.deletion import image as deletion
from deeplens_streams.deletion.unremovable import Unremovable
from deeplens_streams.errors import DependencyUnavailable, StorageUnavailable
from deeplens_streams.metrics import AGED
from deeplens_streams.services import Services
from deeplens_streams.storage.image_objects import DamagedMetadata
from models.deletion import Tombstone

log = structlog.get_logger()

#: Tombstones that are forgotten, or looked at, before it rests.
BATCH = 64
#: Age of a file that was never finished: its process is no more.
_LEFT_BEHIND = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds.

    Attributes
    ----------
    first : before the first look of a process.
    rest : after each batch, so that others hardly notice.
    apart : between two looks at all there is.
    """

    first: float = 300.0
    rest: float = 1.0
    apart: float = 6 * 3600.0


class Ageing(Service):
    """Of one api process; one of them at a time is at work.

    Parameters
    ----------
    is_turn : whether it is this process. Two of them do no harm.
    """

    def __init__(
        self,
        services: Services,
        publish: Publish,
        is_turn: Callable[[], bool],
        timings: Timings = Timings(),
        **kwargs: Any,
    ) -> None:
        self._services, self._publish, self._is_turn = services, publish, is_turn
        self._timings = timings
        self._unremovable = Unremovable(services.breakers, "ageing")
        self._days = timedelta(days=services.settings.tombstone_days)
        super().__init__(**kwargs)

    @Service.task
    async def _age(self) -> None:
        await self.sleep(self._timings.first)
        while not self.should_stop:
            try:
                forgotten = await self.look()
            except DependencyUnavailable:
                pass  # its breaker has said so; what is left is forgotten the next time
            except Exception:
                log.exception("deleted images are not forgotten")
            else:
                if forgotten:
                    log.info("deleted images are forgotten", images=forgotten)
            await self.sleep(self._timings.apart)

    async def look(self) -> int:
        """Forget what is old enough, as long as it is this process's turn; return how many.

        Raises
        ------
        DependencyUnavailable
            The rest is left to the next time.
        """
        now, count, left = datetime.now(UTC), 0, self._unremovable
        left.begin()
        await self._services.tombstones.remove_unfinished(
            before=now - _LEFT_BEHIND, refused=left.refused
        )
        for tenant in await self._services.storage.tenants():
            try:
                async with aclosing(self._of(tenant, now - self._days)) as forgotten:
                    async for some in forgotten:
                        count += some
            except StorageUnavailable as error:  # it cannot be listed
                await left.refused(tenant, error)
            if not self._is_turn():
                return count
        left.end()
        return count

    async def _of(self, tenant: str, before: datetime) -> AsyncGenerator[int]:
        """Forget a tenant's, and yield how many, in batches."""
        batch, looked = list[Tombstone](), 0
        # What was uploaded since cannot have been purged as long ago.
        found = self._services.tombstones.uploaded_before(
            before, tenant=tenant, refused=self._unremovable.refused
        )
        async with aclosing(found) as tombstones:
            async for tombstone in tombstones:
                if not self._is_turn():
                    return
                looked += 1
                if await self._is_old(tombstone):
                    batch.append(tombstone)
                if looked % BATCH == 0:
                    yield await self._forget(batch)
                    batch.clear()
                    await asyncio.sleep(self._timings.rest)
        yield await self._forget(batch)

    async def _is_old(self, tombstone: Tombstone) -> bool:
        """Tell whether nothing is left of the image, long since, and nobody brought it back."""
        if not deletion.is_forgettable(tombstone, self._services):
            return False
        try:
            image = await self._services.storage.get_metadata(
                tenant=tombstone.tenantId,
                image_id=tombstone.imageId,
                uploaded_at=tombstone.uploadedAt,
            )
        except DamagedMetadata:
            return False
        except StorageUnavailable as error:
            await self._unremovable.refused(tombstone.imageId, error)
            return False
        return image is None

    async def _forget(self, batch: list[Tombstone]) -> int:
        count = 0
        if batch:
            # 1. the rows
            await self._publish(*(deletion.forgotten(each) for each in batch))
        for each in batch:
            try:
                # 2. the pointer, 3. the tombstone, by which what was cut off is found again
                await self._services.tombstones.remove(each)
            except StorageUnavailable as error:
                await self._unremovable.refused(each.imageId, error)
            else:
                count += 1
                AGED.inc()
        return count
