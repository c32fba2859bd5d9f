"""The client's calls for tenants, their keys and their collections."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from deeplens_streams.client import answers
from deeplens_streams.client.http import Http, given

TENANTS: Final = "/api/v1/admin/tenants"
_OPERATORS: Final = "/api/v1/admin/keys"
_COLLECTIONS: Final = "/api/v1/admin/collections"


class TenantCalls:
    """Part of `Client`."""

    _http: Http

    async def create_tenant(
        self, tenant: str, *, limits: Mapping[str, int | None] | None = None
    ) -> answers.TenantAnswer:
        """Make a tenant with everything that it needs; its first key is in the answer alone.

        Cut off, the same call goes on where it was; it is sent once, because of the key.
        """
        body = {"tenantId": tenant, "limits": dict(limits or {})}
        return answers.parse(
            answers.TenantAnswer, await self._http.json("POST", TENANTS, json=body)
        )

    async def tenant(self, tenant: str) -> answers.TenantAnswer:
        raw = await self._http.patiently("GET", f"{TENANTS}/{tenant}")
        return answers.parse(answers.TenantAnswer, raw)

    async def tenants(self) -> AsyncGenerator[answers.Tenant]:
        """Yield every tenant, by ID."""
        cursor: str | None = None
        while True:
            params = given(limit="200", cursor=cursor)
            raw = await self._http.patiently("GET", TENANTS, lambda _: {"params": params})  # noqa: B023
            for each in answers.parse(answers.TenantPage, raw).tenants:
                yield each
            cursor = raw["nextCursor"]
            if cursor is None:
                return

    async def limit_tenant(
        self, tenant: str, limits: Mapping[str, int | None]
    ) -> answers.TenantAnswer:
        """Change the limits that are named; None is the system's own."""
        raw = await self._http.json("PATCH", f"{TENANTS}/{tenant}", json={"limits": dict(limits)})
        return answers.parse(answers.TenantAnswer, raw)

    async def suspend_tenant(self, tenant: str) -> answers.TenantAnswer:
        raw = await self._http.patiently("POST", f"{TENANTS}/{tenant}/suspend")
        return answers.parse(answers.TenantAnswer, raw)

    async def resume_tenant(self, tenant: str) -> answers.TenantAnswer:
        raw = await self._http.patiently("POST", f"{TENANTS}/{tenant}/resume")
        return answers.parse(answers.TenantAnswer, raw)

    async def check_tenant(self, tenant: str) -> answers.TenantAnswer:
        """Have everything looked at that a tenant needs; `NotReady` unless all of it is well."""
        raw = await self._http.json("POST", f"{TENANTS}/{tenant}/check")
        return answers.parse(answers.TenantAnswer, raw)

    async def tenant_usage(self, tenant: str) -> answers.TenantUsage:
        raw = await self._http.patiently("GET", f"{TENANTS}/{tenant}/usage")
        return answers.parse(answers.TenantUsage, raw)

    async def delete_tenant(self, tenant: str) -> answers.TenantPurge:
        """Delete a tenant with everything that it has."""
        raw = await self._http.patiently(
            "DELETE", f"{TENANTS}/{tenant}", lambda _: {"params": {"confirm": tenant}}
        )
        return answers.parse(answers.TenantPurge, raw)

    async def tenant_purge(self, tenant: str) -> answers.TenantPurge:
        raw = await self._http.patiently("GET", f"{TENANTS}/{tenant}/purge")
        return answers.parse(answers.TenantPurge, raw)

    async def keys(self, tenant: str | None) -> answers.Keys:
        """Return what is known of a tenant's keys; of operators' with None."""
        raw = await self._http.patiently("GET", _keys_of(tenant))
        return answers.parse(answers.Keys, raw)

    async def create_key(
        self,
        tenant: str | None,
        *,
        name: str = "",
        scopes: Sequence[str] | None = None,
        expires_at: str | None = None,
    ) -> answers.KeyAnswer:
        """Make a key; the answer alone has it. Sent once."""
        body: dict[str, Any] = {
            "name": name,
            "scopes": list(scopes) if scopes else None,
            "expiresAt": expires_at,
        }
        raw = await self._http.json("POST", _keys_of(tenant), json=body)
        return answers.parse(answers.KeyAnswer, raw)

    async def rotate_key(
        self, tenant: str | None, key_id: str, *, overlap_seconds: int | None = None
    ) -> answers.KeyAnswer:
        """Make a key like another, which ends after the overlap. Sent once."""
        body = {"overlapSeconds": overlap_seconds}
        raw = await self._http.json("POST", f"{_keys_of(tenant)}/{key_id}/rotate", json=body)
        return answers.parse(answers.KeyAnswer, raw)

    async def revoke_key(self, tenant: str | None, key_id: str) -> answers.KeyAnswer:
        raw = await self._http.patiently("DELETE", f"{_keys_of(tenant)}/{key_id}")
        return answers.parse(answers.KeyAnswer, raw)

    async def create_collection(
        self, tenant: str, model: str, dimension: int
    ) -> answers.CollectionMade:
        """Make a tenant's collection of a model; one that is there stays as it is."""
        body = {"tenantId": tenant, "modelName": model, "vectorDimension": dimension}
        raw = await self._http.patiently("POST", _COLLECTIONS, lambda _: {"json": body})
        return answers.parse(answers.CollectionMade, raw)


def _keys_of(tenant: str | None) -> str:
    return _OPERATORS if tenant is None else f"{TENANTS}/{tenant}/keys"
