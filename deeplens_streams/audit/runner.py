"""The ledger: accepted = completed + partial + failed + deleted + in flight; and what is wrong.

What was accepted is told by storage, and what became of it by the status table. Everything is
walked in pages, so the memory it takes does not depend on how much there is. What it finds while
pictures are on their way is looked at twice where a moment could explain it.

No repair removes the last copy of anything that nobody has deleted: see `removal`. `accepted`
shrinks by what people delete, and by nothing that is done here.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from deeplens_streams.audit.context import AllRows, AuditContext
from deeplens_streams.audit.damaged_collections import DamagedCollections
from deeplens_streams.audit.deleted_images import DeletedImages
from deeplens_streams.audit.disk_index import DiskIndex
from deeplens_streams.audit.files import Files
from deeplens_streams.audit.guard import reason_of, unless_damaged
from deeplens_streams.audit.images import Images
from deeplens_streams.audit.kept_tenants import KeptTenants
from deeplens_streams.audit.letters import Letters
from deeplens_streams.audit.lost_parts import LostParts
from deeplens_streams.audit.lost_rows import LostRows
from deeplens_streams.audit.orphans import Claims, UnfinishedWrites, Vectors
from deeplens_streams.audit.pointers import Pointers
from deeplens_streams.audit.report import Finding, Ledger, Mended, NotRepaired, Rows
from deeplens_streams.audit.settled import Watermark
from deeplens_streams.audit.sightings import Sightings
from deeplens_streams.audit.usage import Registry, UsageRecount
from deeplens_streams.broker.topics import Publish
from deeplens_streams.services import Services
from models.events import wire_time

#: The first walks, which count what there is, before those that look for what is nobody's.
_COUNTING = 4

_Walk = Callable[[str, Ledger], AsyncGenerator[Finding]]


class Audit:
    """Compares storage, status table, vectors and dead letters.

    Attributes
    ----------
    audit_id : with it everything is marked that its repairs take away.
    """

    def __init__(
        self,
        services: Services,
        rows: Rows,
        all_rows: AllRows,
        publish: Publish,
        watermark: Watermark,
        *,
        repair: bool,
        checksums: bool = False,
        outdated: bool = False,
        registry: Registry | None = None,
    ) -> None:
        self.audit_id = str(uuid4())
        self._services, self._repair = services, repair
        self._index = DiskIndex()
        context = AuditContext(
            services=services,
            rows=rows,
            all_rows=all_rows,
            publish=publish,
            watermark=watermark,
            audit_id=self.audit_id,
            checksums=checksums,
            outdated=outdated,
            index=self._index,
            sightings=Sightings(services, self._index),
        )
        lost = LostParts(context)
        self._of_tenants = (
            KeptTenants(services, registry).walk,
            UsageRecount(context, registry).walk,
        )
        self._watermark = watermark
        self._lost_rows, self._pointers = LostRows(context), Pointers(context)
        # Tombstones before images: what is deleted meanwhile is counted once at the most. Vectors
        # before originals, of which they tell the file name.
        self._walks: tuple[_Walk, ...] = (
            DamagedCollections(context).walk,
            DeletedImages(context).walk,
            Letters(context, lost).walk,
            Images(context).walk,
            Vectors(context, lost).walk,
            Files(context, lost).walk,
            Claims(context, lost).walk,
            UnfinishedWrites(context).walk,
        )
        self._lost = lost
        self._at: tuple[str | None, Ledger] = (None, Ledger())

    @property
    def progress(self) -> dict[str, Any]:
        """How many objects and rows of the tenant were looked at; of all while there is none."""
        tenant, ledger = self._at
        return {"type": "progress", "tenantId": tenant, "checked": ledger.checked}

    async def run(self, tenants: list[str], *, is_all: bool) -> AsyncGenerator[dict[str, Any]]:
        """Yield what is found, the ledger of each tenant, and the ledger of all.

        Parameters
        ----------
        is_all : these are all that there are, so rows of any other are looked at, too. Pointers,
            which are by image alone, are looked at only then.
        """
        try:
            async with aclosing(self._everything(tenants, is_all=is_all)) as lines:
                async for line in lines:
                    yield line
        finally:
            self._index.close()

    async def _everything(
        self, tenants: list[str], *, is_all: bool
    ) -> AsyncGenerator[dict[str, Any]]:
        read_up_to = self._watermark.read_up_to
        ledgers = {tenant: Ledger() for tenant in tenants}
        looked, total = Ledger(), Ledger()
        self._at = (None, looked)
        only = None if is_all else set(tenants)
        rows = self._lost_rows.walk(only, looked, ledgers)
        for walk in (rows, *(of_tenants(only, looked) for of_tenants in self._of_tenants)):
            async for line in self._told("", walk, ledgers):
                yield line
        for tenant in await self._with_vectors(is_all=is_all):
            ledgers.setdefault(tenant, Ledger())
        for tenant in list(ledgers):
            async for line in self._tenant(tenant, ledgers):
                yield line
        if is_all:
            self._at = (None, looked)
            pointers = self._pointers.walk(list(ledgers), looked)
            async for line in self._told("", pointers, ledgers):
                yield line
        for tenant, ledger in ledgers.items():
            yield {"type": "tenant", "tenantId": tenant, **ledger.as_wire()}
        for ledger in ledgers.values():
            total.add(ledger)
        yield {
            "type": "total",
            "auditId": self.audit_id,
            "tenants": len(ledgers),
            "vectorsChecked": self._services.vectors is not None,
            "readUpTo": None if read_up_to is None else wire_time(read_up_to),
            **total.as_wire(),
        }

    async def _with_vectors(self, *, is_all: bool) -> list[str]:
        """Return whom the vector engine knows: storage knows nobody of whom it has nothing."""
        vectors = self._services.vectors if is_all else None
        if vectors is None:
            return []
        known = vectors.tenants()
        return list(await unless_damaged(known, [], self._services, key="whose the vectors are"))

    async def _tenant(
        self, tenant: str, ledgers: dict[str, Ledger]
    ) -> AsyncGenerator[dict[str, Any]]:
        ledger = ledgers[tenant]
        self._at = (tenant, ledger)
        # Of a tenant that is going nothing may be kept that its purge has not seen.
        walks = self._walks[:_COUNTING] if await self._lost.is_going(tenant) else self._walks
        for walk in walks:
            async for line in self._told(tenant, walk(tenant, ledger), ledgers):
                yield line

    async def _told(
        self, tenant: str, walk: AsyncGenerator[Finding], ledgers: dict[str, Ledger]
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yield the line of each thing that a walk finds, mended where that is asked for."""
        async with aclosing(walk) as findings:
            async for each in findings:
                left = [each]
                while left:
                    found = left.pop()
                    owner = tenant if found.tenant is None else found.tenant
                    ledger = ledgers.setdefault(owner, Ledger())
                    ledger.faults[found.fault.value] += 1
                    is_mended, mended = await self._mend(found)
                    left += mended.found
                    ledger.repaired += is_mended
                    yield {
                        "type": "finding",
                        "tenantId": owner,
                        "imageId": found.image_id,
                        "fault": found.fault,
                        "detail": "; ".join(filter(None, (found.detail, mended.note))),
                        "repaired": is_mended,
                    }

    async def _mend(self, found: Finding) -> tuple[bool, Mended]:
        """Return whether something is mended, and what there is to say of that."""
        if not self._repair or found.repair is None:
            return False, Mended()
        try:
            return True, await found.repair() or Mended()
        except NotRepaired as why:
            return False, Mended(note=str(why))
        except Exception as error:
            reason = await reason_of(error, self._services, key=f"{found.image_id} {found.fault}")
            return False, Mended(note=f"not repaired: {reason}")
