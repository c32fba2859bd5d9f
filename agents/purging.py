"""Purger: removes every part of deleted images; with the index role, which has the vectors."""

from contextlib import aclosing
from typing import TYPE_CHECKING

from deeplens_streams import deletion
from deeplens_streams.metrics import DROPPED, PURGED
from deeplens_streams.services import Services
from deeplens_streams.stage import Sender, Stage
from deeplens_streams.topics import DELETED, TENANT_CHANGES, Message, Publisher
from models.deletion import ImageDeleted, Tombstone
from models.events import derived_id, utc_now
from models.tenants import ChangeKind, TenantChange, TenantChangeData

if TYPE_CHECKING:
    import faust

#: Images of a tenant's purge that are announced, and counted, together.
BUNCH = 64


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
    # The row, once more: only this one is certain to come.
    return deletion.messages(tombstone)[1:]


async def _purge_tenant(tenant: str, services: Services, sender: Sender) -> None:
    """Remove all that a tenant has, and then the tenant; begun again, it goes on."""
    purge = await services.tombstones.find_purge(tenant=tenant)
    if purge is None or purge.completedAt is not None:
        return
    async with aclosing(services.storage.walk_images(tenant=tenant)) as images:
        async for image in images:
            await deletion.purge(await deletion.begin(image, services), services)
            purge.images += 1
            if purge.images % BUNCH == 0:
                await services.tombstones.put_purge(purge)
    await _forget_images(tenant, services, sender)
    await _remove_leftovers(tenant, services)
    await services.storage.forget_tenant(tenant=tenant)
    assert services.vectors is not None, "the index role has a vector engine"
    for model in await services.vectors.models_of(tenant=tenant):
        await services.vectors.drop(tenant=tenant, model=model)
    # The registry's row goes last: while it is there, the purge is not over.
    gone = TenantChange(
        eventType=TenantChange.EVENT_TYPE,
        eventId=derived_id("purged", tenant, purge.requestedAt),
        timestamp=utc_now(),
        tenantId=tenant,
        data=TenantChangeData(kind=ChangeKind.PURGED.value),
    )
    await sender.send(Message(TENANT_CHANGES, gone))
    purge.completedAt = utc_now()
    await services.tombstones.put_purge(purge)


async def _forget_images(tenant: str, services: Services, sender: Sender) -> None:
    """Finish what was deleted before, and remove rows and tombstones, in this order."""
    bunch: list[Tombstone] = []

    async def forget() -> None:
        await sender.send(*(deletion.forgotten(each) for each in bunch))
        for each in bunch:
            await services.tombstones.remove(each)
        bunch.clear()

    async with aclosing(services.tombstones.walk(tenant=tenant)) as tombstones:
        async for tombstone in tombstones:
            await deletion.purge(tombstone, services)
            bunch.append(tombstone)
            if len(bunch) == BUNCH:
                await forget()
    if bunch:
        await forget()


async def _remove_leftovers(tenant: str, services: Services) -> None:
    """Remove what belongs to no image: letters, files and claims of uploads that were refused."""
    async with aclosing(services.letters.walk(tenant=tenant)) as letters:
        async for letter in letters:
            await services.letters.remove(letter.letterId)
    async with aclosing(services.storage.walk_files(tenant=tenant)) as files:
        async for key, _ in files:
            await services.storage.delete_object(tenant=tenant, key=key)
    async with aclosing(services.claims.walk(tenant=tenant)) as claims:
        async for checksum, claim in claims:
            await services.claims.release(tenant=tenant, checksum=checksum, image_id=claim.image_id)


def register(app: "faust.App", services: Services, publisher: Publisher) -> None:
    async def one(event: ImageDeleted) -> list[Message]:
        return await process(event, services, publisher)

    stage = Stage("purging", ImageDeleted, one, publisher, services.breakers)

    @app.agent(publisher.channel(DELETED), name="Purger", concurrency=4)
    async def purging(stream: "faust.StreamT[bytes]") -> None:
        await stage.run(stream)
