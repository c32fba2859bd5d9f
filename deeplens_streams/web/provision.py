"""What a tenant needs to begin: made step by step, and looked at afterwards.

Each step may be repeated, so what was cut off goes on where it was.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from deeplens_streams.errors import DeepLensError
from deeplens_streams.vectors import collection_name
from deeplens_streams.web import api_keys
from deeplens_streams.web.context import WebContext
from models.tenants import ChangeKind, Tenant, TenantChangeData, TenantState


@dataclass(slots=True)
class Done:
    """How far it is.

    Attributes
    ----------
    steps : name, and why it failed or what there is to say of it.
    api_key : the key that was made, in this answer alone.
    error_code : of the step that failed; None when there is none.
    """

    steps: list[tuple[str, bool, str]] = field(default_factory=list)
    api_key: str | None = None
    error_code: str | None = None

    @property
    def is_complete(self) -> bool:
        return self.error_code is None

    def as_wire(self) -> list[dict[str, Any]]:
        return [
            {"step": name, "status": "completed" if ok else "failed", "message": said}
            for name, ok, said in self.steps
        ]

    async def step(self, name: str, work: Callable[[], Awaitable[str]]) -> None:
        """Do one step, unless one before it failed."""
        if self.error_code is not None:
            return
        try:
            self.steps.append((name, True, await work()))
        except DeepLensError as error:
            self.steps.append((name, False, error.message))
            self.error_code = error.code


async def provision(context: WebContext, tenant: str) -> Done:
    """Make what a tenant of the registry lacks."""
    done = Done()

    async def first_key() -> str:
        row = context.registry.find(tenant)
        if row is not None and row.keys:
            return "It has keys already; rotate one if it was lost."
        scopes = list(api_keys.TENANT_SCOPES)
        done.api_key, made = await api_keys.issue(context, tenant, name="first", scopes=scopes)
        return f"{made.keyId} may {', '.join(scopes)}."

    async def finish() -> str:
        data = TenantChangeData(kind=ChangeKind.PROVISIONED.value)
        await context.registry.change(tenant, data)
        return "Written down."

    async def collections() -> str:
        services = context.services
        if services.vectors is None:
            return "The worker with the index role makes it with the first picture."
        model = services.model
        await services.vectors.create(
            tenant=tenant,
            model=model.name,
            dimension=model.dimension,
            max_collections=context.quotas.max_collections(tenant),
        )
        return f"There is {collection_name(tenant=tenant, model=model.name)}."

    done.steps.append(("registry", True, "The registry has it."))
    await done.step("storage", lambda: _storage(context))
    await done.step("collections", collections)
    await done.step("first_key", first_key)
    await done.step("ready", finish)
    return done


async def look(context: WebContext, row: Tenant) -> Done:
    """Look at what a tenant needs."""
    done = Done()

    async def state() -> str:
        if row.state != TenantState.ACTIVE or not row.provisioned:
            said = row.state if row.provisioned else "not set up; create it again"
            raise _NotActive(f"The tenant is {said}.")
        return "It is active."

    async def vectors() -> str:
        engine = context.services.vectors
        if engine is None:
            return "They are another worker's."
        return f"It has collections of {len(await engine.models_of(tenant=row.tenantId))} models."

    await done.step("registry", state)
    await done.step("storage", lambda: _storage(context))
    await done.step("collections", vectors)
    return done


class _NotActive(DeepLensError):
    """The tenant is not active."""

    code = "TENANT_NOT_ACTIVE"


async def _storage(context: WebContext) -> str:
    await context.services.storage.ping()
    return "It can be written and read."
