"""Purger: removes every part of deleted images; with the index role, which has the vectors."""

from functools import partial
from typing import TYPE_CHECKING

from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message, Publish
from deeplens_streams.broker.topology import PURGING
from deeplens_streams.deletion import image as deletion
from deeplens_streams.deletion.tenant import purge_tenant
from deeplens_streams.metrics import DROPPED, PURGED
from deeplens_streams.pipeline.registration import register_stage
from deeplens_streams.services import Services
from models.deletion import ImageDeleted

if TYPE_CHECKING:
    import faust


async def process(event: ImageDeleted, services: Services, publish: Publish) -> list[Message]:
    """Purge an image, or all that a tenant has."""
    if event.data.imageId is None:
        await purge_tenant(event.tenantId, services, publish)
        return []
    tombstone = await services.tombstones.find(event.data.imageId)
    if tombstone is None or tombstone.tenantId != event.tenantId:
        DROPPED.labels(PURGING.name).inc()
        return []
    await deletion.purge(tombstone, services)
    PURGED.inc()
    if tombstone.refused:
        # 1. the row, 2. the tombstone, by which this is found again
        await publish(deletion.forgotten(tombstone))
        await services.tombstones.remove(tombstone)
        return []
    # The row, once more: only this one is certain to come.
    return [deletion.ended(tombstone)]


def register(app: "faust.App", services: Services, publisher: Publisher) -> None:
    work = partial(process, services=services, publish=publisher.send)
    register_stage(app, PURGING, work, services=services, publisher=publisher)
