"""What several walks ask of an image that they found a part of, and nothing that tells of it."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.lost_original import Lost
from deeplens_streams.audit.rebuild import Rebuilding
from deeplens_streams.audit.report import (
    IN_FLIGHT,
    UNKNOWN,
    Finding,
    Ledger,
    Mended,
)
from deeplens_streams.audit.sightings import Part
from deeplens_streams.deletion.lost import models_of
from deeplens_streams.errors import InvalidTenantId
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.storage.object_keys import DatedKey
from models.audit import Fault
from models.status import ImageRow, ImageState


class LostParts:
    """Asks and answers about images without metadata object."""

    def __init__(self, context: AuditContext) -> None:
        self._context, self._services = context, context.services
        self._rebuilding = Rebuilding(context)

    async def row(self, tenant: str, image_id: str) -> ImageRow | None:
        """Return the image's row; one that names another tenant is none."""
        row = (await self._context.rows.rows([image_id])).get(image_id)
        return row if row is not None and row.tenantId == tenant else None

    async def is_at_work(self, tenant: str, part: Part[Any]) -> bool:
        """Tell whether a purge will come to a deleted image."""
        if part.ms is not None:
            key = object_keys.tombstone_key(tenant=tenant, image_id=part.image_id, ms=part.ms)
            dated = DatedKey(key, tenant, part.image_id, part.ms)
            try:
                tombstone = await self._services.inventory.tombstone(dated)
            except DamagedMetadata:
                return True  # it is made again, and then it will
            return tombstone is not None and tombstone.completedAt is None
        # It was found in a listing: its pointer is mended first.
        return True

    async def went_with_tenant(self, tenant: str, uploaded_at: str | None) -> bool:
        """Tell whether all that the tenant had then was deleted."""
        with suppress(DamagedMetadata):
            purge = await self._services.tombstones.find_purge(tenant=tenant)
            return purge is not None and (uploaded_at or "") <= purge.requestedAt
        return False

    async def is_going(self, tenant: str) -> bool:
        """Tell whether all that the tenant has is being removed."""
        with suppress(DamagedMetadata, InvalidTenantId):
            purge = await self._services.tombstones.find_purge(tenant=tenant)
            return purge is not None and purge.completedAt is None
        return False

    async def has_vector(self, tenant: str, image_id: str) -> bool:
        vectors = self._services.vectors
        if vectors is None:
            return False
        for model in await models_of(self._services, tenant=tenant, row=None):
            if await vectors.present([image_id], tenant=tenant, model=model):
                return True
        return False

    async def has_parts(self, tenant: str, image_id: str, uploaded_at: str) -> bool:
        """Tell whether row, original or vector of an image is there."""
        row = await self.row(tenant, image_id)
        if row is not None and row.status != ImageState.DELETED:
            return True
        ms = object_keys.epoch_ms(uploaded_at)
        if await self._services.inventory.find_original(tenant=tenant, image_id=image_id, ms=ms):
            return True
        return await self.has_vector(tenant, image_id)

    def found(
        self,
        tenant: str,
        image_id: str,
        ledger: Ledger,
        *,
        times: Sequence[str] = (),
        original_key: str | None = None,
    ) -> Finding:
        """Return that an image of which no row tells is lost, and count it."""
        ledger.accept(UNKNOWN)

        async def rebuild() -> Mended:
            lost = Lost(tenant, image_id, None, tuple(times), original_key=original_key)
            made = await self._rebuilding.repair(lost)
            ledger.settle(IN_FLIGHT)
            return Mended(note=made.doubt)

        part = "its original" if original_key else "its vector"
        detail = f"{part} is there, and neither metadata object nor tombstone nor row"
        return Finding(image_id, Fault.METADATA_MISSING, detail, rebuild)
