"""Purger: removes every part of deleted images; with the index role, which has the vectors."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, TypeVar

import structlog

from deeplens_streams import deletion
from deeplens_streams.metrics import DROPPED, PURGED
from deeplens_streams.services import Services
from deeplens_streams.stage import Sender, Stage
from deeplens_streams.topics import DELETED, TENANT_CHANGES, Message, Publisher
from models.deletion import ImageDeleted, TenantPurge, Tombstone
from models.events import derived_id, utc_now
from models.tenants import ChangeKind, TenantChange, TenantChangeData

if TYPE_CHECKING:
    import faust

log = structlog.get_logger()

T = TypeVar("T")

#: Images of a tenant's purge that are announced, and counted, together.
BUNCH = 64
#: Looks at everything that a tenant has; what the last one finds cannot be removed.
ROUNDS = 10


async def process(event: ImageDeleted, services: Services, sender: Sender) -> list[Message]:
    """Purge an image, or all that a tenant has."""
    if event.data.imageId is None:
        await _purge_tenant(event.tenantId, services, sender)
        return []
    tombstone = await services.tombstones.find(event.data.imageId)
    if tombstone is None or tombstone.tenantId != event.tenantId:
        DROPPED.labels("purging").inc()
        return []
    await deletion.purge(tombstone, services)
    PURGED.inc()
    if tombstone.refused:
        # 1. the row, 2. the tombstone, by which this is found again
        await sender.send(deletion.forgotten(tombstone))
        await services.tombstones.remove(tombstone)
        return []
    # The row, once more: only this one is certain to come.
    return deletion.messages(tombstone)[1:]


async def _purge_tenant(tenant: str, services: Services, sender: Sender) -> None:
    """Remove all that a tenant has, and then the tenant; begun again, it goes on."""
    purge = await services.tombstones.find_purge(tenant=tenant)
    if purge is not None and purge.completedAt is None:
        with suppress(_Overtaken):
            await _TenantPurge(purge, services, sender).run()


class _Overtaken(Exception):
    """Another worker has brought the purge to its end, or it is another purge by now."""


class _TenantPurge:
    """What one worker does for a tenant's purge; others may be doing the same.

    Nothing is removed once nothing was left: what is there then is of a tenant that was made
    since. So before each removal it looks whether the purge is as it was left here.
    """

    def __init__(self, purge: TenantPurge, services: Services, sender: Sender) -> None:
        self._purge, self._services, self._sender = purge, services, sender
        self._found = False

    async def run(self) -> None:
        purge = self._purge
        if purge.emptiedAt is None:
            await self._empty()
            await self._note(emptied_at=utc_now())
        # The registry's row goes last: while it is there, the purge is not over.
        gone = TenantChange(
            eventType=TenantChange.EVENT_TYPE,
            eventId=derived_id("purged", purge.tenantId, purge.requestedAt),
            timestamp=utc_now(),
            tenantId=purge.tenantId,
            data=TenantChangeData(kind=ChangeKind.PURGED.value),
        )
        await self._sender.send(Message(TENANT_CHANGES, gone))
        await self._note(completed_at=utc_now())

    async def _empty(self) -> None:
        """Remove everything, until a look at everything finds nothing.

        An upload or a stage that was at work meanwhile may have written behind the first look.
        """
        tenant = self._purge.tenantId
        for _ in range(ROUNDS):
            self._found = False
            await self._remove_images()
            await self._forget_images()
            await self._remove_leftovers()
            await self._drop_vectors()
            if not self._found:
                break
        else:
            log.warning("something of a purged tenant cannot be removed", tenant=tenant)
        await self._services.storage.forget_tenant(tenant=tenant)

    async def _check(self) -> None:
        known = self._purge
        found = await self._services.tombstones.find_purge(tenant=known.tenantId)
        if (
            found is None
            or found.requestedAt != known.requestedAt
            or (found.emptiedAt, found.completedAt) != (known.emptiedAt, known.completedAt)
        ):
            raise _Overtaken

    async def _note(
        self, *, emptied_at: str | None = None, completed_at: str | None = None
    ) -> None:
        """Write down how far the purge is."""
        await self._check()
        self._purge.emptiedAt = emptied_at or self._purge.emptiedAt
        self._purge.completedAt = completed_at
        await self._services.tombstones.put_purge(self._purge)

    async def _ours(self, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Yield what is to be removed, as long as that is this worker's business."""
        async with aclosing(items) as found:
            async for each in found:
                await self._check()
                self._found = True
                yield each

    async def _remove_images(self) -> None:
        services = self._services
        survey = services.storage.survey(tenant=self._purge.tenantId)
        async with aclosing(self._ours(_whole(survey))) as images:
            async for image in images:
                await deletion.purge(await deletion.begin(image, services), services)
                self._purge.images += 1
                if self._purge.images % BUNCH == 0:
                    await self._note()

    async def _forget_images(self) -> None:
        """Finish what was deleted before, and remove rows and tombstones, in this order."""
        services, bunch = self._services, list[Tombstone]()

        async def forget() -> None:
            await self._sender.send(*(deletion.forgotten(each) for each in bunch))
            for each in bunch:
                await services.tombstones.remove(each)
            bunch.clear()

        survey = services.tombstones.survey(tenant=self._purge.tenantId)
        async with aclosing(self._ours(_whole(survey))) as tombstones:
            async for tombstone in tombstones:
                await deletion.purge(tombstone, services)
                bunch.append(tombstone)
                if len(bunch) == BUNCH:
                    await forget()
        if bunch:
            await forget()

    async def _remove_leftovers(self) -> None:
        """Remove what belongs to no image: letters, files and claims of refused uploads."""
        services, tenant = self._services, self._purge.tenantId
        async with aclosing(self._ours(services.letters.walk(tenant=tenant))) as letters:
            async for letter in letters:
                await services.letters.remove(letter.letterId)
        async with aclosing(self._ours(services.storage.walk_files(tenant=tenant))) as files:
            async for key, _ in files:
                await services.storage.delete_object(tenant=tenant, key=key)
        async with aclosing(self._ours(services.claims.walk(tenant=tenant))) as claims:
            async for checksum, claim in claims:
                await services.claims.release(
                    tenant=tenant, checksum=checksum, image_id=claim.image_id
                )

    async def _drop_vectors(self) -> None:
        vectors, tenant = self._services.vectors, self._purge.tenantId
        assert vectors is not None, "the index role has a vector engine"
        for model in await vectors.models_of(tenant=tenant):
            await self._check()
            self._found |= await vectors.drop(tenant=tenant, model=model)


async def _whole(survey: AsyncGenerator[tuple[str, T | None]]) -> AsyncGenerator[T]:
    """Yield what a survey could read."""
    async with aclosing(survey) as found:
        async for _, each in found:
            if each is not None:
                yield each


def register(app: "faust.App", services: Services, publisher: Publisher) -> None:
    async def one(event: ImageDeleted) -> list[Message]:
        return await process(event, services, publisher)

    stage = Stage("purging", ImageDeleted, one, publisher, services.breakers)

    @app.agent(publisher.channel(DELETED), name="Purger", concurrency=4)
    async def purging(stream: "faust.StreamT[bytes]") -> None:
        await stage.run(stream)
