"""Rows of which storage has neither image nor tombstone: what was accepted and is lost."""

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing, suppress

from deeplens_streams.audit.context import AuditContext, DamagedRow
from deeplens_streams.audit.guard import judged
from deeplens_streams.audit.lost_original import Lost
from deeplens_streams.audit.rebuild import Rebuilding, ThereByNow
from deeplens_streams.audit.report import (
    UNKNOWN,
    Finding,
    Ledger,
    Mended,
    Repair,
    column,
)
from deeplens_streams.audit.sightings import Part, Sighting
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.pipeline.progress import ending
from deeplens_streams.storage.image_objects import DamagedMetadata
from models.audit import Fault
from models.deletion import TenantPurge
from models.status import Ending, ImageRow, ImageState

_WHAT = "neither its metadata object nor that it was deleted is stored"


class LostRows:
    """Walks through the status table.

    The row of a refused upload is none of them: it has ended, or is about to.
    """

    def __init__(self, context: AuditContext) -> None:
        self._context, self._services = context, context.services
        self._settled, self._rebuilding = context.settled_before(), Rebuilding(context)

    async def walk(
        self, tenants: Collection[str] | None, looked: Ledger, ledgers: dict[str, Ledger]
    ) -> AsyncGenerator[Finding]:
        """Yield what is lost of these tenants, or of all, and count it."""
        async with aclosing(self._context.all_rows()) as pages:
            async for page in pages:
                looked.checked += len(page)
                self._settled.snapshot()
                asked = [row for row in page if tenants is None or _tenant(row) in tenants]
                for damaged in asked:
                    if isinstance(damaged, DamagedRow):
                        yield _damaged(damaged)
                rows = [row for row in asked if isinstance(row, ImageRow)]
                for tenant in sorted({row.tenantId for row in rows}):
                    ledger = ledgers.setdefault(tenant, Ledger())
                    own = [row for row in rows if row.tenantId == tenant]
                    async with aclosing(self._of(tenant, own, ledger)) as lost:
                        async for found in lost:
                            yield found

    async def _of(
        self, tenant: str, rows: list[ImageRow], ledger: Ledger
    ) -> AsyncGenerator[Finding]:
        parts = self._parts(rows)
        async with aclosing(self._context.sightings.unseen(tenant, parts)) as unseen:
            async for part, sighting in unseen:
                if sighting is Sighting.NOTHING:
                    row = part.item
                    work = self._judge(row, ledger)
                    for found in await judged(
                        f"row {row.imageId}", row.imageId, work, self._services
                    ):
                        yield found

    async def _parts(self, rows: list[ImageRow]) -> AsyncGenerator[Part[ImageRow]]:
        for row in rows:
            yield Part(row.imageId, row, row.uploadedAt)

    async def _judge(self, row: ImageRow, ledger: Ledger) -> list[Finding]:
        check_image_id(row.imageId)
        if not self._settled.covers(row.lastUpdated):
            return []
        if await self._context.sightings.is_elsewhere(row.tenantId, row.imageId):
            return []  # a stranger has made it
        now = (await self._context.rows.rows([row.imageId])).get(row.imageId)
        if now is None or now.lastUpdated != row.lastUpdated:
            return []
        purge = await self._purge(row.tenantId)
        if purge is not None and row.uploadedAt <= purge.requestedAt:
            return self._went_with_its_tenant(row, purge, ledger)
        if row.status == ImageState.DELETED:
            ledger.accept(ImageState.DELETED)  # of which no tombstone tells any more
            return []
        ledger.accept(UNKNOWN)

        async def rebuild() -> Mended:
            lost = Lost(row.tenantId, row.imageId, row, times=(row.uploadedAt,))
            try:
                made = await self._rebuilding.repair(lost)
            except ThereByNow:
                ledger.forget()
                raise
            ledger.forget()  # it is found as an image
            return Mended(note=made.doubt)

        detail = f"its row says {row.status}; {_WHAT}"
        return [_of_tenant(row, Fault.METADATA_MISSING, detail, rebuild)]

    async def _purge(self, tenant: str) -> TenantPurge | None:
        with suppress(DamagedMetadata):
            return await self._services.tombstones.find_purge(tenant=tenant)
        return None

    def _went_with_its_tenant(
        self, row: ImageRow, purge: TenantPurge, ledger: Ledger
    ) -> list[Finding]:
        if purge.completedAt is None or row.status == ImageState.DELETED:
            return []  # it will come to it, or nobody minds
        # An outcome of nothing that was accepted.
        ledger.counts[column(row)] += 1

        async def repair() -> None:
            # Storage that does not work is no proof: it looks as if it had nothing.
            await self._services.storage.ping()
            await self._context.publish(ending(row, Ending.PURGED))
            ledger.counts[column(row)] -= 1

        detail = f"its row says {row.status}; its tenant was deleted at {purge.requestedAt}"
        return [_of_tenant(row, Fault.ROW_ORPHANED, detail, repair)]


def _of_tenant(row: ImageRow, fault: Fault, detail: str, repair: Repair) -> Finding:
    return Finding(row.imageId, fault, detail, repair, tenant=row.tenantId)


def _tenant(row: ImageRow | DamagedRow) -> str:
    return row.tenantId if isinstance(row, ImageRow) else row.tenant


def _damaged(row: DamagedRow) -> Finding:
    detail = f"row {row.key} cannot be read: {row.reason}"
    return Finding(row.key, Fault.UNREADABLE, detail, tenant=row.tenant)
