"""Collections whose files are damaged: put aside by the engine, given up by a repair."""

from collections.abc import AsyncGenerator
from functools import partial

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.guard import judged, unless_damaged
from deeplens_streams.audit.report import PAGE, Finding, Ledger
from deeplens_streams.vectors import VectorStore
from models.audit import Fault


class DamagedCollections:
    """Vectors that were put aside, behind which searches are refused.

    A repair has searches go on; the vectors themselves are missing then, which is found with their
    images. Where the engine has not met the damage yet, it does here.
    """

    def __init__(self, context: AuditContext) -> None:
        self._services = context.services

    async def walk(self, tenant: str, _ledger: Ledger) -> AsyncGenerator[Finding]:
        vectors = self._services.vectors
        if vectors is None:
            return
        models = vectors.models_of(tenant=tenant)
        key = f"the vectors of {tenant}"
        for model in await unless_damaged(models, [], self._services, key=key):
            work = self._read(vectors, tenant, model)
            # What cannot be read is put aside, and told below.
            await judged(f"the vectors of {model}", "", work, self._services)
        for model in await vectors.damaged(tenant=tenant):
            repair = partial(vectors.give_up_damaged, tenant=tenant, model=model)
            detail = f"vectors of {model} are damaged and were put aside"
            yield Finding("", Fault.COLLECTION_DAMAGED, detail, repair)

    async def _read(self, vectors: VectorStore, tenant: str, model: str) -> list[Finding]:
        await vectors.page(tenant=tenant, model=model, limit=PAGE)
        return []
