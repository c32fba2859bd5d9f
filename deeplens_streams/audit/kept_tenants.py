"""What an audit looks at of what storage keeps of tenants: whether it is there, and can be read."""

from collections.abc import AsyncGenerator, Awaitable, Collection
from dataclasses import replace

from deeplens_streams.audit.guard import judged
from deeplens_streams.audit.report import Finding, Ledger, Repair
from deeplens_streams.audit.usage import Registry
from deeplens_streams.services import Services
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.storage.tenant_records import DamagedRecord, Verdict
from models.audit import Fault
from models.tenants import SYSTEM, Tenant, record_of


class KeptTenants:
    """Compares the registry of tenants with its objects in storage."""

    def __init__(self, services: Services, registry: Registry | None) -> None:
        self._services, self._registry = services, registry
        self._records, self._tombstones = services.tenant_records, services.tombstones

    async def walk(
        self, tenants: Collection[str] | None, ledger: Ledger
    ) -> AsyncGenerator[Finding]:
        """Yield each object that is missing or cannot be read.

        Parameters
        ----------
        tenants : whose; None for all, the system among them.
        """
        for tenant in sorted(await self._tombstones.purged_tenants()):
            if tenants is None or tenant in tenants:
                ledger.checked += 1
                for found in await self._judged(
                    object_keys.purge_key(tenant), self._purge_of(tenant)
                ):
                    yield replace(found, tenant=tenant)
        if self._registry is None or not self._registry.is_current:
            return
        rows = {row.tenantId: row for row in self._registry.rows()}
        kept = await self._records.tenants()
        for tenant in sorted(kept | rows.keys()):
            if tenants is None or tenant in tenants:
                ledger.checked += 1
                work = self._looked_at(tenant, rows.get(tenant), is_kept=tenant in kept)
                owner = "" if tenant == SYSTEM else tenant
                for found in await self._judged(object_keys.registry_key(tenant), work):
                    yield replace(found, tenant=owner)

    async def _judged(self, key: str, work: Awaitable[list[Finding]]) -> list[Finding]:
        return await judged(key, "", work, self._services)

    async def _purge_of(self, tenant: str) -> list[Finding]:
        try:
            await self._tombstones.find_purge(tenant=tenant)
        except DamagedMetadata:
            detail = (
                f"{object_keys.purge_key(tenant)}, which says when it was deleted, cannot be read; "
                "bring it back from a backup, or delete the tenant again if it is to be gone"
            )
            return [Finding("", Fault.REGISTRY_DAMAGED, detail)]
        return []

    async def _looked_at(self, tenant: str, row: Tenant | None, *, is_kept: bool) -> list[Finding]:
        if not is_kept:
            if row is None or await self._records.judge(row) is not Verdict.STANDS:
                return []
            detail = "storage keeps nothing of its limits and keys"
            return [Finding("", Fault.REGISTRY_DAMAGED, detail, self._repair(row))]
        try:
            await self._records.find(tenant)
        except DamagedRecord:
            detail = "what storage keeps of its limits and keys cannot be read"
            return [Finding("", Fault.REGISTRY_DAMAGED, detail, self._repair(row))]
        return []

    def _repair(self, row: Tenant | None) -> Repair | None:
        if row is None:
            return None

        async def repair() -> None:
            await self._records.put(record_of(row))

        return repair
