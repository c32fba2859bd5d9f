"""Removing a tenant: all that it has, and then itself, in steps that survive a crash."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import structlog

from deeplens_streams.broker.topics import Message, Publish
from deeplens_streams.broker.topology import TENANT_CHANGES
from deeplens_streams.deletion import image as deletion
from deeplens_streams.errors import DependencyUnavailable, VectorsRefused
from deeplens_streams.pipeline.progress import ending
from deeplens_streams.services import Services
from deeplens_streams.storage import object_keys
from models.deletion import ImageDeleted, ImageDeletedData, TenantPurge, Tombstone
from models.events import derived_id, utc_now
from models.status import Ending
from models.tenants import ChangeKind, TenantChange, TenantChangeData

log = structlog.get_logger()

T = TypeVar("T")

#: Images that are announced, and counted, together.
BATCH = 64
#: Looks at everything that a tenant has; what the last one finds cannot be removed.
ROUNDS = 10


async def purge_tenant(tenant: str, services: Services, publish: Publish) -> None:
    """Remove all that a tenant has, and then the tenant; begun again, it goes on."""
    purge = await services.tombstones.find_purge(tenant=tenant)
    if purge is not None and purge.completedAt is None:
        work = _Purging(purge, services, publish)
        try:
            await work.run()
        except _Overtaken:
            await work.take_back()


class _Overtaken(Exception):
    """Another worker has brought the purge to its end, or it is another purge by now."""


class _Purging:
    """What one worker does for a tenant's purge; others may be doing the same.

    Nothing is removed once nothing was left: what is there then is of a tenant that was made
    since. So before each removal it looks whether the purge is as it was left here.
    """

    def __init__(self, purge: TenantPurge, services: Services, publish: Publish) -> None:
        self._purge, self._services, self._publish = purge, services, publish
        self._found = False
        #: Why something cannot be removed, which keeps nothing else from going.
        self._refusal: DependencyUnavailable | VectorsRefused | None = None
        #: Of the image that is in hand.
        self._tombstone: Tombstone | None = None

    async def take_back(self) -> None:
        """Remove what was written of the last image behind the end of the purge."""
        if self._tombstone is not None:
            await self._services.tombstones.remove(self._tombstone)
            await self._services.tombstones.unmark_purged(self._purge, self._tombstone.imageId)

    async def run(self) -> None:
        purge = self._purge
        if purge.emptiedAt is None:
            if purge.images and not await self._services.tombstones.count_purged(purge):
                purge.unmarked = purge.images  # a version began it that left no marks
                await self._note()
            await self._empty()
            # Counted when all is gone: by a purge that was killed in between, and by two at once,
            # each image is counted once.
            marked = await self._services.tombstones.count_purged(purge)
            purge.images = purge.unmarked + marked
            await self._note(emptied_at=utc_now())
        await self._services.tombstones.forget_purged(tenant=purge.tenantId)
        # The registry's row goes last: while it is there, the purge is not over.
        gone = TenantChange.new(
            purge.tenantId,
            TenantChangeData(kind=ChangeKind.PURGED.value),
            eventId=derived_id("purged", purge.tenantId, purge.requestedAt),
        )
        await self._publish(Message(TENANT_CHANGES, gone))
        await self._note(completed_at=utc_now())

    async def _empty(self) -> None:
        """Remove everything, until a look at everything finds nothing.

        An upload or a stage that was at work meanwhile may have written behind the first look.

        Raises
        ------
        DependencyUnavailable
            Storage or the vector engine is away; or refuses to have something removed, and the
            rest is gone.
        """
        tenant = self._purge.tenantId
        for _ in range(ROUNDS):
            self._found = False
            await self._remove_images()
            await self._forget_images()
            await self._remove_the_rest()
            await self._drop_vectors()
            if self._refusal is not None:
                raise self._refusal
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
        known = TenantPurge.from_wire(self._purge.to_wire())
        self._purge.emptiedAt = emptied_at or self._purge.emptiedAt
        self._purge.completedAt = completed_at
        if not await self._services.tombstones.replace_purge(self._purge, known=known):
            raise _Overtaken

    async def _ours(self, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Yield what is to be removed, as long as that is this worker's business."""
        async with aclosing(items) as found:
            async for each in found:
                await self._check()
                self._found = True
                yield each

    @asynccontextmanager
    async def _going_on(self) -> AsyncGenerator[None]:
        """Go on behind what cannot be removed, and remember why."""
        try:
            yield
        except DependencyUnavailable as error:
            if not await self._services.breakers.is_alone(error):
                raise
            self._refusal = self._refusal or error
        except VectorsRefused as error:
            self._refusal = self._refusal or error

    async def _remove_images(self) -> None:
        services = self._services
        survey = services.storage.survey(tenant=self._purge.tenantId)
        async with aclosing(self._ours(_whole(survey))) as images:
            async for image in images:
                # 1. that it is this purge's: behind its removal nobody could tell
                await services.tombstones.mark_purged(self._purge, image.imageId)
                # 2. the image
                async with self._going_on():
                    self._tombstone = await deletion.bury(image, services)
                    await deletion.purge(self._tombstone, services)
                self._purge.images += 1
                if self._purge.images % BATCH == 0:
                    await self._note()

    async def _forget_images(self) -> None:
        """Finish what was deleted before, and remove rows and tombstones, in this order."""
        services, batch = self._services, list[Tombstone]()

        async def forget() -> None:
            await self._publish(*(deletion.forgotten(each) for each in batch))
            for each in batch:
                async with self._going_on():
                    await services.tombstones.remove(each)
            batch.clear()

        survey = services.tombstones.survey(tenant=self._purge.tenantId)
        async with aclosing(self._ours(_whole(survey))) as tombstones:
            async for tombstone in tombstones:
                self._tombstone = tombstone
                async with self._going_on():
                    await deletion.purge(tombstone, services)
                    batch.append(tombstone)
                if len(batch) == BATCH:
                    await forget()
        if batch:
            await forget()

    async def _remove_the_rest(self) -> None:
        """Remove whatever has a key of the tenant's, of whatever content.

        That is what belongs to no image: letters, files and claims of refused uploads; what cannot
        be read; and what a killed process had half written.
        """
        storage, tenant = self._services.storage, self._purge.tenantId
        async with aclosing(self._ours(storage.walk_keys(tenant=tenant))) as keys:
            async for key in keys:
                image_id = object_keys.read_mark(tenant=tenant, key=key)
                if image_id is not None:
                    if key.startswith(object_keys.metadata_folder(tenant)):
                        await self._services.tombstones.mark_purged(self._purge, image_id)
                    await self._publish(_forgotten(tenant, image_id))
                async with self._going_on():
                    await storage.remove_listed(tenant=tenant, key=key)

    async def _drop_vectors(self) -> None:
        vectors, tenant = self._services.vectors, self._purge.tenantId
        assert vectors is not None, "the index role has a vector engine"
        for model in await vectors.models_of(tenant=tenant):
            await self._check()
            async with self._going_on():
                self._found |= await vectors.drop(tenant=tenant, model=model)


def _forgotten(tenant: str, image_id: str) -> Message:
    """Return what has a row go of whose image only the ID is known."""
    event = ImageDeleted.new(
        tenant, ImageDeletedData(imageId=image_id), correlationId=derived_id("deleted", image_id)
    )
    return ending(event, Ending.PURGED)


async def _whole(survey: AsyncGenerator[tuple[str, T | None]]) -> AsyncGenerator[T]:
    """Yield what a survey could read; the rest goes by its key."""
    async with aclosing(survey) as found:
        async for _, each in found:
            if each is not None:
                yield each
