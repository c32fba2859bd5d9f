"""The client's calls for tenants, their keys and their collections."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from deeplens_streams.client import models
from deeplens_streams.client.http import Http, given

TENANTS: Final = "/api/v1/admin/tenants"
_OPERATORS: Final = "/api/v1/admin/keys"
_COLLECTIONS: Final = "/api/v1/admin/collections"


class TenantCalls:
    """Part of `Client`."""

    _http: Http

    async def create_tenant(
        self, tenant: str, *, limits: Mapping[str, int | None] | None = None
    ) -> models.TenantAnswer:
        """Make a tenant with everything that it needs; its first key is in the answer alone.

        Cut off, the same call goes on where it was; it is sent once, because of the key.
        """
        body = {"tenantId": tenant, "limits": dict(limits or {})}
        return models.TenantAnswer.read(await self._http.json("POST", TENANTS, json=body))

    async def tenant(self, tenant: str) -> models.TenantAnswer:
        raw = await self._http.patiently("GET", f"{TENANTS}/{tenant}")
        return models.TenantAnswer.read(raw)

    async def tenants(self) -> AsyncGenerator[models.TenantSummary]:
        """Yield every tenant, by ID."""
        cursor: str | None = None
        while True:
            params = given(limit="200", cursor=cursor)
            raw = await self._http.patiently("GET", TENANTS, lambda _: {"params": params})  # noqa: B023
            for each in models.TenantPage.read(raw).tenants:
                yield each
            cursor = raw["nextCursor"]
            if cursor is None:
                return

    async def limit_tenant(
        self, tenant: str, limits: Mapping[str, int | None]
    ) -> models.TenantAnswer:
        """Change the limits that are named; None is the system's own."""
        raw = await self._http.json("PATCH", f"{TENANTS}/{tenant}", json={"limits": dict(limits)})
        return models.TenantAnswer.read(raw)

    async def suspend_tenant(self, tenant: str) -> models.TenantAnswer:
        raw = await self._http.patiently("POST", f"{TENANTS}/{tenant}/suspend")
        return models.TenantAnswer.read(raw)

    async def resume_tenant(self, tenant: str) -> models.TenantAnswer:
        raw = await self._http.patiently("POST", f"{TENANTS}/{tenant}/resume")
        return models.TenantAnswer.read(raw)

    async def check_tenant(self, tenant: str) -> models.TenantAnswer:
        """Have everything looked at that a tenant needs; `NotReady` unless all of it is well."""
        raw = await self._http.json("POST", f"{TENANTS}/{tenant}/check")
        return models.TenantAnswer.read(raw)

    async def tenant_usage(self, tenant: str) -> models.TenantUsage:
        raw = await self._http.patiently("GET", f"{TENANTS}/{tenant}/usage")
        return models.TenantUsage.read(raw)

    async def delete_tenant(self, tenant: str) -> models.TenantPurge:
        """Delete a tenant with everything that it has."""
        raw = await self._http.patiently(
            "DELETE", f"{TENANTS}/{tenant}", lambda _: {"params": {"confirm": tenant}}
        )
        return models.TenantPurge.read(raw)

    async def tenant_purge(self, tenant: str) -> models.TenantPurge:
        raw = await self._http.patiently("GET", f"{TENANTS}/{tenant}/purge")
        return models.TenantPurge.read(raw)

    async def keys(self, tenant: str | None) -> models.Keys:
        """Return what is known of a tenant's keys; of operators' with None."""
        raw = await self._http.patiently("GET", _keys_of(tenant))
        return models.Keys.read(raw)

    async def create_key(
        self,
        tenant: str | None,
        *,
        name: str = "",
        scopes: Sequence[str] | None = None,
        expires_at: str | None = None,
    ) -> models.KeyAnswer:
        """Make a key; the answer alone has it. Sent once."""
        body: dict[str, Any] = {
            "name": name,
            "scopes": list(scopes) if scopes else None,
            "expiresAt": expires_at,
        }
        raw = await self._http.json("POST", _keys_of(tenant), json=body)
        return models.KeyAnswer.read(raw)

    async def rotate_key(
        self, tenant: str | None, key_id: str, *, overlap_seconds: int | None = None
    ) -> models.KeyAnswer:
        """Make a key like another, which ends after the overlap. Sent once."""
        body = {"overlapSeconds": overlap_seconds}
        raw = await self._http.json("POST", f"{_keys_of(tenant)}/{key_id}/rotate", json=body)
        return models.KeyAnswer.read(raw)

    async def revoke_key(self, tenant: str | None, key_id: str) -> models.KeyAnswer:
        raw = await self._http.patiently("DELETE", f"{_keys_of(tenant)}/{key_id}")
        return models.KeyAnswer.read(raw)

    async def create_collection(
        self, tenant: str, model: str, dimension: int
    ) -> models.CollectionMade:
        """Make a tenant's collection of a model; one that is there stays as it is."""
        body = {"tenantId": tenant, "modelName": model, "vectorDimension": dimension}
        raw = await self._http.patiently("POST", _COLLECTIONS, lambda _: {"json": body})
        return models.CollectionMade.read(raw)


def _keys_of(tenant: str | None) -> str:
    return _OPERATORS if tenant is None else f"{TENANTS}/{tenant}/keys"
