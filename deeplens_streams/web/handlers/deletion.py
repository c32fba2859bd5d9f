"""``DELETE`` of an image, and of all that a tenant has."""

import asyncio
from contextlib import suppress
from typing import Final

from aiohttp import web

from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import DELETED
from deeplens_streams.client import models
from deeplens_streams.deletion import image as deletion
from deeplens_streams.deletion.lost import find_lost, tombstone_of
from deeplens_streams.errors import (
    BadRequest,
    BrokerRefused,
    DependencyUnavailable,
    ImageNotFound,
    NotFound,
)
from deeplens_streams.identifiers import check_image_id, check_tenant_id
from deeplens_streams.services import Services
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.context import WebContext
from deeplens_streams.web.lookup import find_image
from deeplens_streams.web.middleware.auth import AUTHENTICATOR, tenant_bound
from deeplens_streams.web.responses import json_answer, success
from models.deletion import (
    ImageDeleted,
    ImageDeletedData,
    PurgeStep,
    TenantPurge,
    Tombstone,
)
from models.events import new_event_id, utc_now
from models.status import ImageRow, ImageState
from models.tenants import ChangeKind, TenantChangeData

#: Seconds that an answer waits, to be able to say that everything is gone.
_PATIENCE_S: Final = 2.0
_LOOK_S: Final = 0.05


async def delete(request: web.Request) -> web.Response:
    """Answer 200 when nothing is left of the image, 202 while something is.

    From the answer on, nobody finds the image. Asking again tells how far its purge is.
    """
    context = request.app[CONTEXT]
    services = context.services
    tombstone = await _begun(request, context)
    if tombstone.completedAt is None:
        # Also for one that may not have been announced. If it is not now, it will be.
        with suppress(DependencyUnavailable, BrokerRefused):
            await deletion.announce(tombstone, services, context.publish)
            tombstone = await _purged(tombstone, services)
    done = tombstone.completedAt is not None
    answer = {
        **success(models.Deletion),
        "message": "Nothing is left of this picture."
        if done
        else "The picture is deleted; what is stored of it is being removed.",
        "imageId": tombstone.imageId,
        "tenantId": tombstone.tenantId,
        "status": ImageState.DELETED,
        "deletionSteps": [
            {
                "step": step,
                "status": "completed" if step in tombstone.steps else "pending",
                "at": tombstone.steps.get(step),
            }
            for step in PurgeStep
        ],
        "requestedAt": tombstone.requestedAt,
        "completedAt": tombstone.completedAt,
    }
    return json_answer(answer, status=200 if done else 202)


async def _begun(request: web.Request, context: WebContext) -> Tombstone:
    """Return the image's tombstone; from here on it is certain to be deleted.

    That holds whoever is killed or away, and also where its metadata object is lost or damaged.
    """
    services = context.services
    try:
        image = await find_image(request)
    except ImageNotFound:
        known = await _tombstone(request, services)
        return known or await _begin_lost(request, context)
    except DamagedMetadata:
        return await _begin_lost(request, context)
    row = await _row(image.imageId, context)
    generation = row.generation if row is not None else 1
    tombstone = await deletion.begin(image, services, generation=generation)
    await _hide(tombstone, services)
    return tombstone


async def _begin_lost(request: web.Request, context: WebContext) -> Tombstone:
    """Begin to delete an image of which parts are there, and no metadata object tells."""
    services, image_id = context.services, check_image_id(request.match_info["image_id"])
    tenant = tenant_bound(request, request.query.get("tenantId"))
    row = await _row(image_id, context)
    place = await find_lost(services, image_id, tenant=tenant, row=row)
    if place is None:
        raise ImageNotFound
    request.app[AUTHENTICATOR].check_owner(place.tenant)
    own = row if row is not None and row.tenantId == place.tenant else None
    tombstone = await tombstone_of(
        services, tenant=place.tenant, image_id=image_id, ms=place.ms, row=own
    )
    await deletion.begin_lost(tombstone, services)
    await _hide(tombstone, services)
    return tombstone


async def _row(image_id: str, context: WebContext) -> ImageRow | None:
    try:
        return await context.rows.row(image_id)
    except DependencyUnavailable:
        return None  # nothing waits for the table; letters that stay are found by an audit


async def _hide(tombstone: Tombstone, services: Services) -> None:
    """Take it out of search before the answer, where the engine is at hand.

    The purge does it, too, as soon as its turn has come.
    """
    if services.vectors is not None:
        with suppress(DependencyUnavailable):  # then nobody searches
            for model in tombstone.models:
                await services.vectors.delete(
                    [tombstone.imageId], tenant=tombstone.tenantId, model=model
                )


async def _tombstone(request: web.Request, services: Services) -> Tombstone | None:
    """Return the tombstone of an image that was deleted; None where none can be read."""
    found = await services.tombstones.find(check_image_id(request.match_info["image_id"]))
    if found is None:
        return None
    if tenant_bound(request, request.query.get("tenantId")) not in (None, found.tenantId):
        raise ImageNotFound
    request.app[AUTHENTICATOR].check_owner(found.tenantId)
    return found


async def _purged(tombstone: Tombstone, services: Services) -> Tombstone:
    """Return the tombstone as it is when all is purged, or after a while."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE_S
    while tombstone.completedAt is None and loop.time() < deadline:
        await asyncio.sleep(_LOOK_S)
        tombstone = await services.tombstones.find(tombstone.imageId) or tombstone
    return tombstone


async def delete_tenant(request: web.Request) -> web.Response:
    """Have all removed that a tenant has, and the tenant; nothing is done for it from now on."""
    context = request.app[CONTEXT]
    tenant = check_tenant_id(request.match_info["tenant_id"])
    if request.query.get("confirm") != tenant:
        raise BadRequest(f"This deletes every picture of {tenant}; add ?confirm={tenant}.")
    await context.registry.ready()
    # 1. no more uploads, also of a tenant that nobody made
    _, row = await context.registry.change(tenant, TenantChangeData(kind=ChangeKind.DELETE.value))
    tombstones = context.services.tombstones
    purge = None
    with suppress(DamagedMetadata):  # then it is replaced
        purge = await tombstones.find_purge(tenant=tenant)
    if purge is None or purge.emptiedAt is not None or purge.completedAt is not None:
        purge = TenantPurge(tenantId=tenant, requestedAt=utc_now(), tenantCreatedAt=row.createdAt)
        # 2. what is to be done
        await tombstones.put_purge(purge)
    event_id = new_event_id()
    event = ImageDeleted.new(
        tenant,
        ImageDeletedData(),
        eventId=event_id,
        correlationId=event_id,
        timestamp=purge.requestedAt,
    )
    # 3. who does it
    await context.publish(Message(DELETED, event))
    return _purge_answer(purge, status=202)


async def tenant_purge(request: web.Request) -> web.Response:
    """Tell how far a tenant's purge is."""
    services = request.app[CONTEXT].services
    tenant = check_tenant_id(request.match_info["tenant_id"])
    purge = await services.tombstones.find_purge(tenant=tenant)
    if purge is None:
        raise NotFound("There was no purge of this tenant.")
    return _purge_answer(purge)


def _purge_answer(purge: TenantPurge, status: int = 200) -> web.Response:
    done = purge.completedAt is not None
    answer = {
        **success(models.TenantPurge),
        "message": "Nothing is left." if done else "Everything that it has is being removed.",
        "tenantId": purge.tenantId,
        "requestedAt": purge.requestedAt,
        "completedAt": purge.completedAt,
        "imagesDeleted": purge.images,
        "imagesLeft": 0 if done else None,
    }
    return json_answer(answer, status=status)
