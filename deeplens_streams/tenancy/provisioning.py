"""What a tenant needs to begin: made step by step, and looked at afterwards.

Each step may be repeated, so what was cut off goes on where it was.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from deeplens_streams.errors import (
    CollectionNotFound,
    DeepLensError,
    KeyNotFound,
    VectorsUnavailable,
)
from deeplens_streams.services import Services
from deeplens_streams.tenancy import api_keys
from deeplens_streams.tenancy.quotas import Quotas
from deeplens_streams.tenancy.registry import Registry
from deeplens_streams.vectors import collection_name
from models.collections import CollectionStatus
from models.tenants import ChangeKind, Tenant, TenantChangeData, TenantState


@dataclass(slots=True)
class Done:
    """How far it is.

    Attributes
    ----------
    steps : name, how it ended, and why it did so or what there is to say of it.
    api_key : the key that was made, in this answer alone.
    error_code : of the step that failed; None when there is none.
    """

    steps: list[tuple[str, str, str]] = field(default_factory=list)
    api_key: str | None = None
    error_code: str | None = None

    @property
    def is_complete(self) -> bool:
        return self.error_code is None

    def as_wire(self) -> list[dict[str, Any]]:
        return [
            {"step": name, "status": status, "message": said} for name, status, said in self.steps
        ]

    async def step(self, name: str, work: Callable[[], Awaitable[str]]) -> None:
        """Do one step, unless one before it failed."""
        if self.error_code is not None:
            return
        try:
            self.steps.append((name, "completed", await work()))
        except _Skipped as reason:
            self.steps.append((name, "skipped", str(reason)))
        except DeepLensError as error:
            self.steps.append((name, "failed", error.message))
            self.error_code = error.code


class _Skipped(Exception):
    """This process cannot do the step; the text says who does."""


async def provision(services: Services, registry: Registry, quotas: Quotas, tenant: str) -> Done:
    """Make what a tenant of the registry lacks."""
    done = Done()

    async def first_key() -> str:
        row = registry.find(tenant)
        if row is not None and api_keys.living(row):
            return "It has keys already; rotate one if it was lost."
        scopes = list(api_keys.TENANT_SCOPES)
        done.api_key, made = await api_keys.issue(registry, tenant, name="first", scopes=scopes)
        return f"{made.keyId} may {', '.join(scopes)}."

    async def finish() -> str:
        data = TenantChangeData(kind=ChangeKind.PROVISIONED.value)
        await registry.change(tenant, data)
        return "Written down."

    async def collections() -> str:
        if services.vectors is None:
            raise _Skipped("The worker with the index role makes it with the first picture.")
        model = services.model
        await services.vectors.create(
            tenant=tenant,
            model=model.name,
            dimension=model.dimension,
            max_collections=quotas.max_collections(tenant),
        )
        return f"There is {collection_name(tenant=tenant, model=model.name)}."

    done.steps.append(("registry", "completed", "The registry has it."))
    await done.step("storage", lambda: _storage(services))
    await done.step("collections", collections)
    await done.step("first_key", first_key)
    await done.step("ready", finish)
    return done


async def look(services: Services, registry: Registry, row: Tenant) -> Done:
    """Look at what a tenant needs."""
    done = Done()

    async def state() -> str:
        if row.state != TenantState.ACTIVE or not row.provisioned:
            said = row.state if row.provisioned else "not set up; create it again"
            raise _NotActive(f"The tenant is {said}.")
        return "It is active."

    async def collections() -> str:
        engine, model = services.vectors, services.model.name
        if engine is None:
            raise _Skipped("This worker has no vectors; ask the one with the index role.")
        name = collection_name(tenant=row.tenantId, model=model)
        found = await engine.describe(tenant=row.tenantId, model=model)
        if found is None:
            raise CollectionNotFound(f"There is no {name}; the next picture makes it.")
        if found.status is CollectionStatus.RED:
            raise VectorsUnavailable(found.trouble)
        return f"There is {name}."

    async def keys() -> str:
        if registry.is_open:
            return "Keys are off."
        if not (working := api_keys.living(row)):
            raise KeyNotFound("It has no key that works; make one.")
        return f"It has {len(working)} that work."

    await done.step("registry", state)
    await done.step("storage", lambda: _storage(services))
    await done.step("collections", collections)
    await done.step("keys", keys)
    return done


class _NotActive(DeepLensError):
    """The tenant is not active."""

    code = "TENANT_NOT_ACTIVE"


async def _storage(services: Services) -> str:
    await services.storage.ping()
    return "It can be written and read."
