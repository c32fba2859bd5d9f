"""Originals and thumbnails of which no metadata object tells."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.guard import judged
from deeplens_streams.audit.lost_parts import LostParts
from deeplens_streams.audit.removal import Removal
from deeplens_streams.audit.report import Finding, Ledger
from deeplens_streams.audit.settled import is_old
from deeplens_streams.audit.sightings import Part, Sighting
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.measured import measured
from models.audit import Fault
from models.status import ImageState


class Files:
    """Tells what was accepted and is lost from what never was, or was deleted."""

    def __init__(self, context: AuditContext, lost: LostParts) -> None:
        self._context, self._services = context, context.services
        self._lost, self._removal = lost, Removal(context)

    async def walk(self, tenant: str, ledger: Ledger) -> AsyncGenerator[Finding]:
        parts = self._parts(tenant, ledger)
        async with aclosing(self._context.sightings.unseen(tenant, parts)) as unseen:
            async for part, sighting in unseen:
                work = self._judge(tenant, part, sighting, ledger)
                for found in await judged(part.item, part.image_id, work, self._services):
                    yield found

    async def _parts(self, tenant: str, ledger: Ledger) -> AsyncGenerator[Part[str]]:
        async with aclosing(self._services.storage.walk_files(tenant=tenant)) as files:
            async for key, image_id in files:
                ledger.checked += 1
                day = object_keys.read_file_day(key)
                if day is not None:
                    yield Part(image_id, key, day=day)

    async def _judge(
        self, tenant: str, part: Part[str], sighting: Sighting, ledger: Ledger
    ) -> list[Finding]:
        key, image_id = part.item, part.image_id
        # An upload stores the bytes first.
        written = await self._services.inventory.written_at(key)
        if written is None or not is_old(written):
            return []
        if not self._context.sightings.covers(written, tenant=tenant):
            return []
        if sighting is Sighting.DELETED:
            if await self._lost.is_at_work(tenant, part):
                return []
            gone = self._removal.deleted_file(key, tenant=tenant)
            return [Finding(image_id, Fault.FILE_ORPHANED, f"{key}: it was deleted", gone)]
        row = await self._lost.row(tenant, image_id)
        if row is not None and row.status != ImageState.DELETED:
            return []  # its row tells of it
        return await self._without_row(tenant, part, ledger, is_ended=row is not None)

    async def _without_row(
        self, tenant: str, part: Part[str], ledger: Ledger, *, is_ended: bool
    ) -> list[Finding]:
        """Tell what a file is of which no row tells, or one that says that it was deleted."""
        key, image_id = part.item, part.image_id
        if key.startswith(f"{tenant}/thumbnail/"):
            if not is_ended and await self._original_beside(tenant, part) is not None:
                return []  # which tells of it
        elif not is_ended and await self._was_accepted(tenant, image_id, key):
            if await self._lost.has_vector(tenant, image_id):
                return []  # which tells of it
            return [self._lost.found(tenant, image_id, ledger, original_key=key)]
        why = "its row says that it was deleted" if is_ended else "no sign that it was accepted"
        repair = self._removal.file(key, tenant=tenant, image_id=image_id, why=why)
        return [Finding(image_id, Fault.FILE_ORPHANED, f"{key}: {why}", repair)]

    async def _original_beside(self, tenant: str, part: Part[str]) -> str | None:
        ms = object_keys.epoch_ms(f"{part.day}T00:00:00+00:00")
        return await self._services.inventory.find_original(
            tenant=tenant, image_id=part.image_id, ms=ms
        )

    async def _was_accepted(self, tenant: str, image_id: str, key: str) -> bool:
        """Tell whether an original without a row is of an upload that was answered.

        Stages leave a vector and a thumbnail, and an answer is followed by a confirmed claim. An
        upload that was killed before its metadata object was there has none of these.
        """
        if await self._context.sightings.is_elsewhere(tenant, image_id):
            return False
        ms = object_keys.epoch_ms(f"{object_keys.read_file_day(key)}T00:00:00+00:00")
        thumbnail = object_keys.thumbnail_key(
            tenant=tenant, image_id=image_id, uploaded_at=object_keys.time_of(ms)
        )
        if await self._services.inventory.has(thumbnail):
            return True
        if await self._lost.has_vector(tenant, image_id):
            return True
        found = await measured(self._services.storage.stream(tenant=tenant, key=key))
        claim = await self._services.claims.find(tenant=tenant, checksum=found.sha256)
        return claim is not None and claim.image_id == image_id and claim.confirmed
