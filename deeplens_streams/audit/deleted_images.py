"""What an audit looks at of images that were deleted: whether all of each is gone."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from deeplens_streams.audit.orphans import is_stored
from deeplens_streams.audit.report import UNKNOWN, Fault, Found, Ledger, Rows, pages_of, rows_of
from deeplens_streams.audit.settled import Stillness
from deeplens_streams.deletion import image as deletion
from deeplens_streams.services import Services
from deeplens_streams.topics import Publish
from models.deletion import Tombstone
from models.status import ImageState


class DeletedImages:
    """Tombstones, and whether what they stand for is purged."""

    def __init__(self, services: Services, rows: Rows, publish: Publish, still: Stillness) -> None:
        self._services, self._rows = services, rows
        self._publish, self._still = publish, still

    async def walk(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        """Count a tenant's, and yield those of which something is left."""
        survey = self._services.tombstones.survey(tenant=tenant)
        async with aclosing(pages_of(survey)) as pages:
            async for page in pages:
                ledger.checked += len(page)
                self._still.note()
                rows = await rows_of(self._rows, tenant, page)
                for image_id, tombstone in page:
                    row = rows.get(image_id)
                    is_told = row is not None and row.status == ImageState.DELETED
                    found = await self._looked_at(tenant, image_id, tombstone, is_told, ledger)
                    if found is not None:
                        yield image_id, found

    async def _looked_at(
        self,
        tenant: str,
        image_id: str,
        tombstone: Tombstone | None,
        is_told: bool,
        ledger: Ledger,
    ) -> Found | None:
        uploaded_at = tombstone.uploadedAt if tombstone else None
        has_image = await is_stored(self._services, tenant, image_id, uploaded_at)
        may_move = tombstone is not None and not self._still.has(tombstone.requestedAt)
        outcome = ImageState.DELETED if is_told or may_move else UNKNOWN
        if not has_image:  # else it is counted as an image
            ledger.accept(outcome)
        if tombstone is None:
            return (Fault.METADATA_DAMAGED, "its tombstone cannot be read", None)
        left = len(deletion.left(tombstone))
        if may_move or not (left or has_image or not is_told):
            return None

        async def repair() -> None:
            await self._services.storage.remove_metadata(tombstone)
            await self._publish(*deletion.messages(tombstone))
            if not has_image and outcome == UNKNOWN:
                ledger.settle(ImageState.DELETED)

        detail = f"{left} steps are left" if left else "its row or its metadata do not say so"
        return (Fault.PURGE_UNFINISHED, detail, repair)
