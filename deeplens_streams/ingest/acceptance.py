"""Accepting an image: durable writes in order, and none left when one fails."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from deeplens_streams.broker.topics import Message, Publish
from deeplens_streams.broker.topology import UPLOADED
from deeplens_streams.deletion import image as deletion
from deeplens_streams.errors import (
    BrokerUnavailable,
    DeepLensError,
    QuotaExceeded,
    StorageUnavailable,
)
from deeplens_streams.ingest.background import BackgroundTasks
from deeplens_streams.ingest.duplicates import (
    DuplicateFinder,
    DuplicateOf,
    Found,
    New,
    Rows,
    TakeOver,
)
from deeplens_streams.ingest.steps import Step, StepRunner
from deeplens_streams.ingest.timings import Timings
from deeplens_streams.pipeline.requests import uploaded_event
from deeplens_streams.services import Services
from deeplens_streams.storage.blobs.store import AlreadyThere, Write
from deeplens_streams.storage.duplicate_claims import Claim
from deeplens_streams.tenancy.quotas import Quotas, Room
from deeplens_streams.tenancy.registry import Registry
from models.deletion import Tombstone
from models.images import StoredImage
from models.status import ImageRow
from models.tenants import Tenant

log = structlog.get_logger()

_TOO_LONG = "Storing the picture took too long; try again."


class Changes(Protocol):
    """What is used of the status feed."""

    def subscribe(self, image_id: str) -> AbstractAsyncContextManager[asyncio.Queue[ImageRow]]:
        """Receive the changes of one image from now on."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What an upload is answered with.

    Attributes
    ----------
    image : the image that is to be followed; of a duplicate, the earlier one.
    duplicate_of : the earlier image's ID, or None where this one is new.
    """

    image: StoredImage
    duplicate_of: str | None = None


@dataclass(slots=True)
class _Upload:
    """One try to accept an image.

    Attributes
    ----------
    source : its bytes, or the file that has them, which storage may move away.
    tenant : its tenant's row when the try began; None where its first use makes it.
    began : when nothing of it was written yet.
    room : what it fills of its tenant's limits, once that is taken.
    """

    image: StoredImage
    source: Path | bytes
    tenant: Tenant | None
    began: float = field(default_factory=time.monotonic)
    room: Room | None = None

    @property
    def claims(self) -> bool:
        """Whether others of the same bytes are to find it before it is accepted."""
        return not self.image.processingOptions.skipDuplicateCheck


class UploadAcceptance:
    """Accepts images; one for each process with the api role.

    Attributes
    ----------
    timings : how long all of it may take, and each part.
    background : what goes on behind answers: confirmations, and the removal of what was refused.
    """

    def __init__(
        self,
        services: Services,
        *,
        rows: Rows,
        changes: Changes,
        publish: Publish,
        registry: Registry,
        quotas: Quotas,
        timings: Timings | None = None,
    ) -> None:
        self._services, self._storage, self._claims = services, services.storage, services.claims
        self._changes, self._publish = changes, publish
        self._registry, self._quotas = registry, quotas
        self.timings = timings or Timings()
        self.background = BackgroundTasks()
        self.duplicates = DuplicateFinder(self._storage, self._claims, rows, self.timings)
        self._runner = StepRunner(services.breakers, self.background)

    async def close(self) -> None:
        """Wait a little for what goes on behind answers, and cut off the rest."""
        await self.background.close(self.timings.close_s)

    async def accept(self, image: StoredImage, source: Path | bytes) -> Accepted:
        """Make the image durable; when this returns, every stage will see it.

        Where the tenant has an earlier one of the same bytes, nothing of this one is kept.

        Raises
        ------
        StorageUnavailable, StorageFull, BrokerUnavailable
            One write failed, or all took too long; what the others wrote is removed.
        RowMoving
            Nobody can tell whether the image that has these bytes has failed.
        QuotaExceeded
            The tenant has no room for it, and not its bytes.
        TenantDeleting, TenantNotFound
            Its tenant is being removed, or was; nothing of the image is left.
        """
        try:
            async with asyncio.timeout(self.timings.accept_s) as deadline:
                return await self._accept(image, source)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise StorageUnavailable(_TOO_LONG) from None

    async def _accept(self, image: StoredImage, source: Path | bytes) -> Accepted:
        # Most images are new: it is making the claim that finds the others.
        found: Found = New()
        while not isinstance(found, DuplicateOf):
            try:
                await self._store(image, source, found)
            except AlreadyThere:
                found = await self.duplicates.find_duplicate(image)
            except QuotaExceeded:
                # Bytes that the tenant has take no room.
                earlier = await self._earlier(image)
                if earlier is None:
                    raise
                found = earlier
            else:
                return Accepted(image)
        return Accepted(found.image, found.image.imageId)

    async def _earlier(self, image: StoredImage) -> DuplicateOf | None:
        if image.processingOptions.skipDuplicateCheck:
            return None
        found = await self.duplicates.find_duplicate(image)
        return found if isinstance(found, DuplicateOf) else None

    async def _store(self, image: StoredImage, source: Path | bytes, found: New | TakeOver) -> None:
        """Do all that makes the image durable, or leave nothing of it.

        Raises
        ------
        AlreadyThere
            Somebody else has a claim on its bytes.
        """
        tenant = self._registry.require(image.tenantId)
        upload = _Upload(image, source, tenant)
        try:
            await self._runner.run(
                self._steps(upload, found), patience_s=self.timings.undo_s, image_id=image.imageId
            )
        except BaseException:
            # The registry's matter: it does not wait for storage to be there again.
            self.background.start(self._give_room_back(upload))
            raise
        # 6. confirmation, behind the answer
        self.background.start(self._confirm(image, tenant))

    def _steps(self, upload: _Upload, found: New | TakeOver) -> list[Step]:
        image, claim, taken_over = upload.image, None, []
        if isinstance(found, TakeOver):
            taken_over = [
                Step(partial(self._take_over, image, found.claim), partial(self._release, image))
            ]
        elif upload.claims:
            claim = self._claims.pending(image)
        return [
            Step(partial(self._take_room, upload)),
            *taken_over,
            # 1. claim, 2. bytes, 3. pointer, 4. metadata object
            Step(partial(self._write, upload, claim), partial(self._forget, image)),
            Step(partial(self._look_again, upload)),
            # 5. event
            Step(partial(self._announce, image), partial(self._delete, image)),
        ]

    # What is done ------------------------------------------------------------------------

    async def _take_room(self, upload: _Upload) -> None:
        image = upload.image
        upload.room = await self._quotas.upload(image.tenantId, image.fileSize)
        image.lease = upload.room.lease
        upload.began = time.monotonic()  # its claim is not made yet

    async def _take_over(self, image: StoredImage, claim: Claim) -> None:
        if not await self._claims.take_over(image, claim):
            raise AlreadyThere

    async def _write(self, upload: _Upload, claim: Write | None) -> None:
        try:
            async with asyncio.timeout(self.timings.store_s):
                await self._storage.put_image(upload.image, upload.source, claim=claim)
        except TimeoutError:
            raise StorageUnavailable from None

    async def _look_again(self, upload: _Upload) -> None:
        """See whether the image may still be announced: writing it took a while.

        A claim that looked dead meanwhile may be another's; a purge of the tenant may have looked
        before this image was there.
        """
        image = upload.image
        if upload.claims and time.monotonic() - upload.began > self.timings.pending_s / 2:
            held = await self._claims.find(tenant=image.tenantId, checksum=image.checksumSha256)
            mine = held is not None and held.image_id == image.imageId
            if held is None or not mine or not await self._claims.take_over(image, held):
                raise StorageUnavailable(_TOO_LONG)
        self._registry.require(image.tenantId, before=upload.tenant)

    async def _announce(self, image: StoredImage) -> None:
        async with self._changes.subscribe(image.imageId) as changes:
            try:
                await self._publish(Message(UPLOADED, uploaded_event(image)))
            except BrokerUnavailable:
                # Kafka may have taken it and died before it said so; who has worked on it knows.
                if changes.empty():
                    raise

    async def _confirm(self, image: StoredImage, tenant: Tenant | None) -> None:
        # Without it, the next upload of these bytes waits a little and asks the table.
        with suppress(DeepLensError):
            self._registry.require(image.tenantId, before=tenant)
            await self._claims.confirm(image)

    # How it is undone --------------------------------------------------------------------

    async def _delete(self, image: StoredImage) -> None:
        """Delete the image as accepted ones are: Kafka may have its event.

        Stages may be at work on it, and done before its metadata object is gone.
        """
        tombstone = await deletion.begin(image, self._services, refused=True)
        # Behind the removal, on which an answer waits: Kafka is away.
        self.background.start(self._purge(tombstone))

    async def _purge(self, tombstone: Tombstone) -> None:
        try:
            announce = partial(deletion.announce, tombstone, self._services, self._publish)
            await self._services.breakers.wait_until_available(announce)
        except Exception:
            log.exception("refused upload left behind", image_id=tombstone.imageId)

    async def _forget(self, image: StoredImage) -> None:
        tenant = image.tenantId
        # The metadata object goes first: without it, a stage drops the event. A deleted image's
        # is gone, and its pointer leads to the tombstone.
        if await self._services.tombstones.find(image.imageId) is None:
            await self._storage.delete_metadata(tenant=tenant, image_id=image.imageId)
        await self._release(image)
        await self._storage.delete_object(tenant=tenant, key=image.thumbnailKey)
        await self._storage.delete_object(tenant=tenant, key=image.originalKey)

    async def _release(self, image: StoredImage) -> None:
        await self._claims.release(
            tenant=image.tenantId, checksum=image.checksumSha256, image_id=image.imageId
        )

    async def _give_room_back(self, upload: _Upload) -> None:
        if upload.room is not None:
            await self._quotas.unused(upload.room)
