"""What an audit looks at of images that were deleted: whether all of each is gone."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.guard import judged
from deeplens_streams.audit.pointers import pointer_fault
from deeplens_streams.audit.report import (
    UNKNOWN,
    Finding,
    Ledger,
    Repair,
    pages_of,
    rows_of,
)
from deeplens_streams.audit.sightings import AT_ONCE
from deeplens_streams.deletion import image as deletion
from deeplens_streams.deletion.lost import tombstone_of
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata, OtherVersion
from deeplens_streams.storage.object_keys import DatedKey
from models.audit import Fault
from models.deletion import Tombstone
from models.status import ImageRow, ImageState
from models.trash import TrashKind


class DeletedImages:
    """Tombstones, and whether what they stand for is purged."""

    def __init__(self, context: AuditContext) -> None:
        self._context, self._services = context, context.services
        self._settled = context.settled_before()

    async def walk(self, tenant: str, ledger: Ledger) -> AsyncGenerator[Finding]:
        """Count a tenant's, and yield those of which something is left."""
        keys = self._services.inventory.deleted(tenant=tenant)
        async with aclosing(pages_of(keys)) as pages:
            async for page in pages:
                ledger.checked += len(page)
                self._settled.snapshot()
                ids = [each.image_id for each in page]
                rows = await rows_of(self._context.rows, tenant, ids)
                for start in range(0, len(page), AT_ONCE):
                    some = page[start : start + AT_ONCE]
                    work = [self._judged(each, rows.get(each.image_id), ledger) for each in some]
                    for found in await asyncio.gather(*work):
                        for each in found:
                            yield each

    async def _judged(self, dated: DatedKey, row: ImageRow | None, ledger: Ledger) -> list[Finding]:
        return await judged(
            dated.key,
            dated.image_id,
            self._judge(dated, row, ledger),
            self._services,
            failed=lambda: ledger.accept(UNKNOWN),
        )

    async def _judge(self, dated: DatedKey, row: ImageRow | None, ledger: Ledger) -> list[Finding]:
        is_told = row is not None and row.status == ImageState.DELETED
        inventory = self._services.inventory
        has_image = await inventory.has(
            object_keys.metadata_key(tenant=dated.tenant, image_id=dated.image_id, ms=dated.ms)
        )
        damaged, tombstone = False, None
        try:
            tombstone = await inventory.tombstone(dated)
        except OtherVersion:  # for that one to mend
            raise
        except DamagedMetadata:
            damaged = True
        if tombstone is None and not damaged:
            return []  # gone meanwhile
        if tombstone is not None and row is None:
            # It is just being forgotten: first its row.
            is_told = deletion.is_forgettable(tombstone, self._services)
        may_move = tombstone is not None and not self._settled.covers(tombstone.requestedAt)
        outcome = ImageState.DELETED if is_told or may_move else UNKNOWN
        found = await pointer_fault(dated, self._context)
        wrong = [] if found is None else [found]
        if tombstone is None:
            is_unknown = outcome == UNKNOWN and not has_image
            repair = self._rebuild(dated, row, ledger if is_unknown else None)
            detail = "its tombstone cannot be read"
            wrong.append(Finding(dated.image_id, Fault.METADATA_DAMAGED, detail, repair))
        elif not may_move and (deletion.left(tombstone) or has_image or not is_told):
            wrong.append(self._unfinished(tombstone, ledger, has_image, outcome))
        if wrong and not await inventory.has(dated.key):
            return []  # it went while it was looked at
        if not has_image:  # else it is counted as an image
            ledger.accept(outcome)
        return wrong

    def _unfinished(
        self, tombstone: Tombstone, ledger: Ledger, has_image: bool, outcome: str
    ) -> Finding:
        async def repair() -> None:
            await self._services.storage.remove_metadata(tombstone)
            await self._context.publish(*deletion.messages(tombstone))
            if not has_image and outcome == UNKNOWN:
                ledger.settle(ImageState.DELETED)

        left = len(deletion.left(tombstone))
        detail = f"{left} steps are left" if left else "its row or its metadata do not say so"
        return Finding(tombstone.imageId, Fault.PURGE_UNFINISHED, detail, repair)

    def _rebuild(self, dated: DatedKey, row: ImageRow | None, ledger: Ledger | None) -> Repair:
        async def repair() -> None:
            services = self._services
            tombstone = await tombstone_of(
                services, tenant=dated.tenant, image_id=dated.image_id, ms=dated.ms, row=row
            )
            # 1. what is replaced, 2. tombstone, 3. metadata object, 4. event
            await services.trash.copy(
                dated.key,
                kind=TrashKind.TOMBSTONE,
                tenant=dated.tenant,
                image_id=dated.image_id,
                why=self._context.why("it could not be read, and was made again"),
            )
            await services.tombstones.put(tombstone)
            await services.storage.remove_metadata(tombstone)
            await self._context.publish(*deletion.messages(tombstone))
            if ledger is not None:
                ledger.settle(ImageState.DELETED)

        return repair
