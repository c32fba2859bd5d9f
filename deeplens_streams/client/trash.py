"""The client's calls about what repairs took away."""

from dataclasses import dataclass
from typing import Final

from deeplens_streams.client import models
from deeplens_streams.client.http import Http, given

_TRASH: Final = "/api/v1/admin/trash"


@dataclass(frozen=True, slots=True)
class EmptiedTrash:
    """How many things are gone, and how many stay, because storage refuses; `why` names one."""

    removed: int
    not_removed: int
    why: str | None


class TrashCalls:
    """Part of `Client`."""

    _http: Http

    async def trash(
        self, *, tenant: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> models.TrashPage:
        """Return a page of what is kept, of a tenant or of all."""
        params = given(tenantId=tenant, limit=str(limit), cursor=cursor)
        raw = await self._http.patiently("GET", _TRASH, lambda _: {"params": params})
        return models.TrashPage.read(raw)

    async def restore_trash(self, trash_id: str, *, replace: bool = False) -> models.TrashEntry:
        """Bring a thing back to where it was; what is there by now may be replaced."""
        raw = await self._http.json(
            "POST", f"{_TRASH}/{trash_id}/restore", params={"replace": str(replace).lower()}
        )
        return models.TrashEntry.read(raw["entry"])

    async def remove_trash(self, trash_id: str) -> models.TrashEntry:
        """Remove one thing for good."""
        raw = await self._http.json("DELETE", f"{_TRASH}/{trash_id}")
        return models.TrashEntry.read(raw["entry"])

    async def empty_trash(self, *, older_than_days: int, tenant: str | None = None) -> EmptiedTrash:
        """Remove for good what has been there for so long."""
        params, removed = given(tenantId=tenant, olderThanDays=str(older_than_days)), 0
        while True:
            raw = await self._http.json("DELETE", _TRASH, params=params)
            removed += int(raw["removed"])
            if not raw["more"]:
                left = int(raw.get("notRemoved") or 0)  # an older worker says nothing of it
                return EmptiedTrash(removed, left, raw["message"])
