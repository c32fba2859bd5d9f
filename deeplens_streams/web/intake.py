"""Accepting a picture: durable writes in order, and none left when one fails."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from deeplens_streams.broker.faust_transport import TAKEN_OVER_S
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import UPLOADED
from deeplens_streams.circuit_breaker import was_refused
from deeplens_streams.deletion import image as deletion
from deeplens_streams.errors import (
    BrokerUnavailable,
    DeepLensError,
    RowMoving,
    StorageUnavailable,
)
from deeplens_streams.pipeline.requests import uploaded_event
from deeplens_streams.storage.blobs.store import AlreadyThere, Write
from deeplens_streams.storage.duplicate_claims import Claim, DuplicateClaims
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.timestamps import parse_time
from deeplens_streams.web.context import WebContext
from models.deletion import Tombstone
from models.images import StoredImage
from models.status import ImageRow, ImageState
from models.tenants import Tenant

log = structlog.get_logger()

#: Seconds that the writes to storage may take together.
STORE_TIMEOUT_S = 60.0
#: Seconds after which the upload that has a pending claim is dead: writing its metadata object
#: and its event takes less. By its own clock, if that is so long ago that clocks do not matter.
PENDING_S, LONG_AGO_S = 12.0, 60.0
_LOOK_S = 0.05
#: Seconds for which an upload waits for the row of the image that has its bytes.
MOVE_S, _ROW_LOOK_S = TAKEN_OVER_S, 0.25
#: Seconds that the client's answer waits for the removal; it goes on behind the answer.
_UNDO_PATIENCE_S = 3.0

#: Work that goes on behind an answer: the event loop itself holds tasks only weakly.
_behind: set[asyncio.Task[None]] = set()


class Intake:
    """Takes pictures in; one for each process with the api role."""

    def __init__(self, context: WebContext) -> None:
        self._services, self._storage = context.services, context.services.storage
        self._breakers = context.services.breakers
        self._claims: DuplicateClaims = context.services.claims
        self._rows, self._feed = context.rows, context.feed
        self._publish, self._registry = context.publish, context.registry

    async def accept(self, image: StoredImage, source: Path | bytes) -> StoredImage:
        """Make the picture durable; when this returns, every stage will see it.

        Returns the image, or the tenant's earlier one of the same bytes, and then nothing of
        this one is kept.

        Raises
        ------
        StorageUnavailable, StorageFull, BrokerUnavailable
            One write failed; what the others wrote is removed.
        RowMoving
            Nobody can tell whether the image that has these bytes has failed.
        TenantDeleting, TenantNotFound
            Its tenant is being removed, or was; nothing of the picture is left.
        """
        if image.processingOptions.skipDuplicateCheck:
            await self._accept(image, source, claims=False)
            return image
        with suppress(AlreadyThere):
            await self._accept(image, source, self._claims.pending(image))
            return image
        while True:
            held = await self._settled(image)
            if held is None:  # refused in the end
                with suppress(AlreadyThere):
                    await self._accept(image, source, self._claims.pending(image))
                    return image
                continue
            first = await self._alive(image, held)
            if first is not None:
                return first
            if await self._claims.take_over(image, held):
                await self._accept(image, source)
                return image

    async def earlier(self, image: StoredImage) -> StoredImage | None:
        """Return the tenant's image of the same bytes to which `accept` would refer, or None.

        Raises
        ------
        StorageUnavailable, RowMoving
            Nobody can tell now.
        """
        if image.processingOptions.skipDuplicateCheck:
            return None
        held = await self._settled(image)
        return None if held is None else await self._alive(image, held)

    async def _settled(self, image: StoredImage) -> Claim | None:
        """Return who has the image's bytes, once that is certain."""
        seen, since = None, 0.0
        while True:
            held = await self._claims.find(tenant=image.tenantId, checksum=image.checksumSha256)
            if held is None or held.confirmed or _is_older(held.at, LONG_AGO_S):
                return held
            if held.image_id == image.imageId:
                return held  # made by a write whose answer was lost
            if seen != held.raw:
                seen, since = held.raw, time.monotonic()
            elif time.monotonic() - since > PENDING_S:
                return held
            await asyncio.sleep(_LOOK_S)

    async def _alive(self, image: StoredImage, held: Claim) -> StoredImage | None:
        """Return the image that has the bytes, or None if they are to be processed again."""
        if not held.image_id:
            return None
        try:
            first = await self._storage.get_metadata(
                tenant=image.tenantId, image_id=held.image_id, uploaded_at=held.uploaded_at
            )
        except DamagedMetadata:
            return None  # nobody is referred to what cannot be shown
        if first is None:
            return None  # refused or deleted
        row = await self._row(first.imageId)
        if row is None:  # without one, an upload died that has not confirmed its claim
            return first if held.confirmed else None
        return None if row.status in {ImageState.FAILED, ImageState.DELETED} else first

    async def _row(self, image_id: str) -> ImageRow | None:
        """Return the image's row; one that moves is waited for: only it tells of a failure."""
        deadline = time.monotonic() + MOVE_S
        while True:
            try:
                return await self._rows.row(image_id)
            except RowMoving:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_ROW_LOOK_S)

    async def _accept(
        self,
        image: StoredImage,
        source: Path | bytes,
        claim: Write | None = None,
        *,
        claims: bool = True,
    ) -> None:
        # Without a write of its own, the claim was taken over.
        began, wrote, sent = time.monotonic(), claims and claim is None, False
        try:
            tenant = self._registry.require(image.tenantId)
            # 1. claim, 2. bytes, 3. pointer, 4. metadata object
            await self._store(image, source, claim)
            wrote = True
            if claims and time.monotonic() - began > PENDING_S / 2:
                await self._check_claim(image)
            # A purge that began meanwhile may have looked before this picture was there.
            self._registry.require(image.tenantId, before=tenant)
            # 5. event
            sent = True
            await self._announce(image)
        except AlreadyThere:  # by the first write: there is nothing to remove
            raise
        except BaseException as error:  # a cancelled request leaves nothing, either
            untried = was_refused(error)
            if wrote or not untried:
                await self._undo(image, sent=sent and not untried)
            raise
        # 6. confirmation, behind the answer
        _go_on(self._confirm(image, tenant))

    async def _announce(self, image: StoredImage) -> None:
        async with self._feed.subscribe(image.imageId) as changes:
            try:
                await self._publish(Message(UPLOADED, uploaded_event(image)))
            except BrokerUnavailable:
                # Kafka may have taken it and died before it said so; who has worked on it knows.
                if changes.empty():
                    raise

    async def _store(self, image: StoredImage, source: Path | bytes, claim: Write | None) -> None:
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self._storage.put_image(image, source, claim=claim)
        except TimeoutError:
            raise StorageUnavailable from None

    async def _check_claim(self, image: StoredImage) -> None:
        """Renew the claim if it is still this image's: writing took long, and it looked dead."""
        held = await self._claims.find(tenant=image.tenantId, checksum=image.checksumSha256)
        mine = held is not None and held.image_id == image.imageId
        if held is None or not mine or not await self._claims.take_over(image, held):
            raise StorageUnavailable("Storing the picture took too long; try again.")

    async def _confirm(self, image: StoredImage, tenant: Tenant | None) -> None:
        # Without it, the next upload of these bytes waits a little and asks the table.
        with suppress(DeepLensError):
            self._registry.require(image.tenantId, before=tenant)
            await self._claims.confirm(image)

    async def _undo(self, image: StoredImage, *, sent: bool) -> None:
        """Remove a refused picture; waits a little, and goes on behind if that is not enough.

        Parameters
        ----------
        sent : Kafka may have its event. Then stages may be at work on it, and done before its
            metadata object is gone; so it is deleted as accepted pictures are, when Kafka is back.
        """
        task = _go_on(self._remove(image, sent=sent))
        await asyncio.wait({task}, timeout=_UNDO_PATIENCE_S)

    async def _remove(self, image: StoredImage, *, sent: bool) -> None:
        try:
            # The metadata object goes first: without it, a stage drops the event.
            if not sent:
                await self._breakers.wait_until_available(partial(self._forget, image))
                return
            begin = partial(deletion.begin, image, self._services, refused=True)
            tombstone = await self._breakers.wait_until_available(begin)
            await self._breakers.wait_until_available(partial(self._remove_files, image))
        except Exception:
            log.exception("refused upload left behind", image_id=image.imageId)
        else:
            # Behind the removal, on which an answer waits.
            _go_on(self._purge(tombstone))

    async def _forget(self, image: StoredImage) -> None:
        await self._storage.delete_metadata(tenant=image.tenantId, image_id=image.imageId)
        await self._remove_files(image)

    async def _remove_files(self, image: StoredImage) -> None:
        tenant = image.tenantId
        await self._claims.release(
            tenant=tenant, checksum=image.checksumSha256, image_id=image.imageId
        )
        await self._storage.delete_object(tenant=tenant, key=image.thumbnailKey)
        await self._storage.delete_object(tenant=tenant, key=image.originalKey)

    async def _purge(self, tombstone: Tombstone) -> None:
        try:
            announce = partial(deletion.announce, tombstone, self._services, self._publish)
            await self._breakers.wait_until_available(announce)
        except Exception:
            log.exception("refused upload left behind", image_id=tombstone.imageId)


def _is_older(at: str, seconds: float) -> bool:
    moment = parse_time(at)
    return moment is None or (datetime.now(UTC) - moment).total_seconds() > seconds


def _go_on(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    _behind.add(task)
    task.add_done_callback(_behind.discard)
    return task
