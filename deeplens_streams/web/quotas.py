"""Limits of tenants, held across workers: whoever has a tenant's row hands out room, in leases.

A worker fills its leases without asking. Near the limit they are of one picture each, and what
lies idle is given back, so a tenant gets all of its room and no more.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

from mode import Service

from deeplens_streams.config import Settings
from deeplens_streams.errors import DeepLensError, QuotaExceeded, RateLimited
from deeplens_streams.web.registry import Registry
from models.events import new_event_id
from models.tenants import ChangeKind, Limits, Tenant, TenantChangeData

#: Pictures that a worker asks room for at once.
_BATCH = 10
#: A minute's uploads or searches are asked for in this many parts.
_RATE_PARTS = 10
#: Seconds that room may lie unused before it is given back.
_IDLE_S = 5.0
#: How often room is asked for again while others have some to give back, and how long after.
_ASKS, _ASK_AGAIN_S = 4, 0.3
#: Seconds for which a refusal holds without asking again, and those that a client is told.
_REFUSED_S, _RETRY_AFTER_S = 1.0, 30
_MINUTE_S = 60

_Kind = Literal["uploads", "searches"]


@dataclass(frozen=True, slots=True)
class Room:
    """Taken for one picture; `lease` is None where the tenant has no limit."""

    tenant: str
    lease: str | None
    size: int


@dataclass(slots=True)
class _Lease:
    """What this worker may fill of a tenant's room."""

    lease_id: str
    images: int
    bytes: int
    used_at: float


class Quotas(Service):
    """Of one api process."""

    def __init__(self, settings: Settings, registry: Registry, **kwargs: Any) -> None:
        self._registry = registry
        self._defaults = Limits(
            images=settings.tenant_max_images,
            bytes=settings.tenant_max_bytes,
            uploadsPerMinute=settings.tenant_uploads_per_minute,
            searchesPerMinute=settings.tenant_searches_per_minute,
        )
        self._max_collections = settings.tenant_max_collections
        self._leases: dict[str, _Lease] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refused: dict[str, float] = {}
        self._recalls: dict[str, int] = {}
        #: By tenant and kind: the minute, and what is left of it here.
        self._tokens: dict[tuple[str, str], tuple[int, int]] = {}
        registry.on_change(self._look)
        super().__init__(**kwargs)

    def limits(self, tenant: str) -> Limits:
        """Return a tenant's own limits, with the system's where it has none."""
        row = self._registry.find(tenant)
        return (row.limits if row is not None else Limits()).over(self._defaults)

    def max_collections(self, tenant: str) -> int:
        own = self.limits(tenant).collections
        return self._max_collections if own is None else own

    async def upload(self, tenant: str, size: int) -> Room:
        """Take room for one more picture of `size` bytes.

        Raises
        ------
        QuotaExceeded, RateLimited
        RegistryUnavailable, BrokerUnavailable
            Nobody can tell whether there is room.
        """
        await self._registry.ready()
        await self._rate(tenant, "uploads", self.limits(tenant).uploadsPerMinute)
        limits = self.limits(tenant)
        if limits.images is None and limits.bytes is None:
            return Room(tenant, None, size)
        async with self._locks[tenant]:
            lease = self._leases.get(tenant)
            if lease is None or lease.images < 1 or lease.bytes < size:
                await self._give_back(tenant)
                lease = self._leases[tenant] = await self._lease(tenant, limits, size)
            lease.images -= 1
            lease.bytes -= size
            lease.used_at = time.monotonic()
            return Room(tenant, lease.lease_id, size)

    async def search(self, tenant: str) -> None:
        """Take one search of this minute; raises as `upload`."""
        await self._registry.ready()
        await self._rate(tenant, "searches", self.limits(tenant).searchesPerMinute)

    async def unused(self, room: Room) -> None:
        """Give back room that no picture fills."""
        if room.lease is None:
            return
        lease = self._leases.get(room.tenant)
        if lease is not None and lease.lease_id == room.lease:
            lease.images += 1
            lease.bytes += room.size
        else:
            with contextlib.suppress(DeepLensError):  # it is taken back after a while
                await self._return(room.tenant, room.lease, 1, room.size)

    async def _lease(self, tenant: str, limits: Limits, size: int) -> _Lease:
        if self._refused.get(tenant, 0.0) > time.monotonic():
            raise self._full(tenant, limits)
        for _ in range(_ASKS):
            lease_id = new_event_id()
            outcome, row = await self._registry.change(
                tenant,
                TenantChangeData(
                    kind=ChangeKind.LEASE.value,
                    lease=lease_id,
                    images=_BATCH,
                    bytes=size,
                    limits=self._defaults,
                ),
            )
            granted = row.leases.get(lease_id)
            if not outcome and granted is not None:
                return _Lease(lease_id, granted.images, granted.bytes, time.monotonic())
            if not row.leases:
                break
            await asyncio.sleep(_ASK_AGAIN_S)
        self._refused[tenant] = time.monotonic() + _REFUSED_S
        raise self._full(tenant, limits)

    def _full(self, tenant: str, limits: Limits) -> QuotaExceeded:
        row = self._registry.find(tenant)
        has = row.usage if row is not None else None
        most = [
            f"{limit:,} {what}"
            for limit, what in ((limits.images, "pictures"), (limits.bytes, "bytes"))
            if limit is not None
        ]
        said = f" and has {has.images:,} pictures, {has.bytes:,} bytes" if has else ""
        error = QuotaExceeded(
            f"The tenant {tenant} may have {' and '.join(most)}{said}; "
            "delete pictures, or have its limits raised."
        )
        error.retry_after = _RETRY_AFTER_S
        return error

    async def _rate(self, tenant: str, kind: _Kind, limit: int | None) -> None:
        if limit is None:
            return
        key, minute = (tenant, kind), int(time.time() // _MINUTE_S)
        async with self._locks[f"{kind}:{tenant}"]:
            known, left = self._tokens.get(key, (0, 0))
            if known != minute or left == 0:
                left = await self._tokens_of(tenant, kind, minute, max(1, limit // _RATE_PARTS))
            self._tokens[key] = (minute, left - 1 if left > 0 else -1)
        if left < 1:
            error = RateLimited(
                f"The tenant {tenant} may have {limit:,} {kind} in a minute; try again in the next."
            )
            error.retry_after = _MINUTE_S - int(time.time() % _MINUTE_S)
            raise error

    async def _tokens_of(self, tenant: str, kind: _Kind, minute: int, batch: int) -> int:
        """Return how many more of `kind` this worker may do in this minute."""
        for count in sorted({batch, 1}, reverse=True):
            data = TenantChangeData(
                kind=ChangeKind.RATE.value, minute=minute, limits=self._defaults
            )
            setattr(data, kind, count)
            outcome, _ = await self._registry.change(tenant, data)
            if not outcome:
                return count
        return 0

    def _look(self, row: Tenant) -> None:
        """Give back what is unused when others ask in vain."""
        tenant = row.tenantId
        if row.recalls > self._recalls.get(tenant, 0) and tenant in self._leases:
            self.add_future(self._recall(tenant))
        self._recalls[tenant] = row.recalls

    async def _recall(self, tenant: str) -> None:
        lock = self._locks[tenant]
        if not lock.locked():  # else this very worker is asking, and has nothing left
            async with lock:
                with contextlib.suppress(DeepLensError):
                    await self._give_back(tenant)

    async def _give_back(self, tenant: str) -> None:
        lease = self._leases.get(tenant)
        if lease is None:
            return
        images, size = lease.images, lease.bytes
        if images > 0:
            lease.images = lease.bytes = 0
            try:
                await self._return(tenant, lease.lease_id, images, size)
            except DeepLensError:
                lease.images += images
                lease.bytes += size
                raise
        if lease.images == 0:  # else a picture was refused meanwhile
            self._leases.pop(tenant, None)

    async def _return(self, tenant: str, lease_id: str, images: int, size: int) -> None:
        data = TenantChangeData(
            kind=ChangeKind.RETURN.value, lease=lease_id, images=images, bytes=size
        )
        await self._registry.tell(tenant, data)

    @Service.task
    async def _return_idle(self) -> None:
        while not self.should_stop:
            await self.sleep(1.0)
            old = time.monotonic() - _IDLE_S
            for tenant in [each for each, lease in self._leases.items() if lease.used_at < old]:
                await self._recall(tenant)

    async def on_stop(self) -> None:
        for tenant in list(self._leases):
            with contextlib.suppress(DeepLensError):
                await self._give_back(tenant)
