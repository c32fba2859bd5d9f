"""What an audit looks at of what storage keeps of tenants: whether it is there, and can be read."""

from collections.abc import AsyncGenerator, Collection

from deeplens_streams.audit.report import Fault, Found, Ledger, Repair
from deeplens_streams.audit.usage import Registry
from deeplens_streams.services import Services
from deeplens_streams.storage.tenant_records import DamagedRecord, Verdict
from models.tenants import SYSTEM, Tenant, record_of


class KeptTenants:
    """Compares the registry of tenants with its objects in storage."""

    def __init__(self, services: Services, registry: Registry | None) -> None:
        self._records, self._registry = services.tenant_records, registry

    async def walk(self, tenants: Collection[str] | None, ledger: Ledger) -> AsyncGenerator[Found]:
        """Yield each object that is missing or cannot be read.

        Parameters
        ----------
        tenants : whose; None for all, the system among them.
        """
        if self._registry is None or not self._registry.is_current:
            return
        rows = {row.tenantId: row for row in self._registry.rows()}
        kept = await self._records.tenants()
        for tenant in sorted(kept | rows.keys()):
            if tenants is None or tenant in tenants:
                ledger.checked += 1
                found = await self._looked_at(tenant, rows.get(tenant), is_kept=tenant in kept)
                if found is not None:
                    yield found

    async def _looked_at(self, tenant: str, row: Tenant | None, *, is_kept: bool) -> Found | None:
        owner = "" if tenant == SYSTEM else tenant
        if not is_kept:
            if row is None or await self._records.judge(row) is not Verdict.STANDS:
                return None
            detail = "storage keeps nothing of its limits and keys"
            return Found("", Fault.REGISTRY_DAMAGED, detail, self._repair(row), owner)
        try:
            await self._records.find(tenant)
        except DamagedRecord:
            detail = "what storage keeps of its limits and keys cannot be read"
            return Found("", Fault.REGISTRY_DAMAGED, detail, self._repair(row), owner)
        return None

    def _repair(self, row: Tenant | None) -> Repair | None:
        if row is None:
            return None

        async def repair() -> None:
            await self._records.put(record_of(row))

        return repair
