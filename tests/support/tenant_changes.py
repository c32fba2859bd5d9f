"""Changes of tenants as their table is fed with them."""

from typing import Any

from models.events import new_event_id
from models.tenants import (
    ChangeKind,
    Count,
    Limits,
    Tenant,
    TenantChange,
    TenantChangeData,
)
from tables.tenants import changed

NOW = "2026-01-01T00:00:00.000Z"
LATER = "2026-01-01T00:11:00.000Z"
NEXT_YEAR = "2027-01-01T00:00:00.000Z"


class Registry:
    """`status_tracking.Tenants` that knows every tenant, or nothing."""

    def __init__(self, *, knows: bool = True) -> None:
        self.knows = knows

    def has(self, tenant: str, since: str | None) -> bool:
        return self.knows and since is not None


def event(kind: ChangeKind, at: str = NOW, **data: Any) -> TenantChange:
    return TenantChange(
        eventType=TenantChange.EVENT_TYPE,
        eventId=new_event_id(),
        timestamp=at,
        tenantId="acme",
        data=TenantChangeData(kind=kind.value, **data),
    )


def after(row: Tenant | None, change: TenantChange, *, is_open: bool = False) -> Tenant:
    found = changed(row, change, is_open=is_open)
    assert found is not None
    return found


def tenant(**limits: Any) -> Tenant:
    return after(None, event(ChangeKind.CREATE, limits=Limits(**limits)))


def count(offset: int, images: int = 1, size: int = 10, **more: Any) -> Count:
    return Count(offset=offset, images=images, bytes=size, **more)
