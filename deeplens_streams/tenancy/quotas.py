"""Limits of tenants, held across workers: whoever has a tenant's row hands out room, in leases.

A worker fills its leases without asking. Near the limit they are of one picture each, and what
lies idle is given back, so a tenant gets all of its room and no more.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from mode import Service

from deeplens_streams.config import Settings
from deeplens_streams.errors import DeepLensError, QuotaExceeded, RateLimited, TenantDeleting
from deeplens_streams.tenancy.registry import Registry, patience
from models.events import new_event_id
from models.tenants import ChangeKind, Limits, Tenant, TenantChangeData
from tables.tenants import GOING

#: Pictures that a worker asks room for at once.
_BATCH = 10
#: A minute's uploads or searches are asked for in this many parts.
_RATE_PARTS = 10
#: How often room is asked for again while others have some to give back, and how long after.
_ASKS, _ASK_AGAIN_S = 4, 0.3
#: Seconds for which a refusal holds without asking again, and those that a client is told.
_REFUSED_S, _RETRY_AFTER_S = 1.0, 30
_MINUTE_S = 60

_Kind = Literal["uploads", "searches"]


@dataclass(frozen=True, slots=True)
class Timings:
    """After how many seconds of nothing something is let go.

    Attributes
    ----------
    idle_s : room that lies unused is given back.
    forget_s : a tenant that does nothing here is forgotten: nobody's limits are held by
        remembering, and with keys off anybody may name any number of tenants.
    """

    idle_s: float = 5.0
    forget_s: float = 120.0


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
    #: Whether it was given back, or may have been: then nothing of it is filled any more.
    returned: bool = False

    def fits(self, size: int) -> bool:
        return not self.returned and self.images > 0 and self.bytes >= size


@dataclass(slots=True)
class _Tokens:
    """Uploads or searches of one minute that this worker may do; -1 are refused without asking."""

    minute: int = 0
    left: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Share:
    """What this worker has of one tenant's limits."""

    used_at: float = 0.0
    lease: _Lease | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: As the row had it when it was last looked at.
    recalls: int = 0
    refused_until: float = 0.0
    uploads: _Tokens = field(default_factory=_Tokens)
    searches: _Tokens = field(default_factory=_Tokens)

    @property
    def is_busy(self) -> bool:
        locks = (self.lock, self.uploads.lock, self.searches.lock)
        return self.lease is not None or any(lock.locked() for lock in locks)


class Quotas(Service):
    """Of one api process."""

    def __init__(
        self, settings: Settings, registry: Registry, timings: Timings = Timings(), **kwargs: Any
    ) -> None:
        self._registry, self._timings = registry, timings
        self._defaults = Limits(
            images=settings.tenant_max_images,
            bytes=settings.tenant_max_bytes,
            uploadsPerMinute=settings.tenant_uploads_per_minute,
            searchesPerMinute=settings.tenant_searches_per_minute,
        )
        self._max_collections = settings.tenant_max_collections
        self._shares: dict[str, _Share] = {}
        registry.on_change(self._look)
        super().__init__(**kwargs)

    def limits(self, tenant: str) -> Limits:
        """Return a tenant's own limits, with the system's where it has none."""
        row = self._registry.find(tenant)
        return self._defaults if row is None else row.limits.over(self._defaults)

    def max_collections(self, tenant: str) -> int:
        own = self.limits(tenant).collections
        return self._max_collections if own is None else own

    async def upload(self, tenant: str, size: int) -> Room:
        """Take room for one more picture of `size` bytes.

        Raises
        ------
        QuotaExceeded
        TenantDeleting, TenantNotFound
            There is no such tenant any more.
        RegistryUnavailable, BrokerUnavailable
            Nobody can tell whether there is room.
        """
        await self._registry.ready()
        self._registry.require(tenant)
        limits = self.limits(tenant)
        if limits.images is None and limits.bytes is None:
            return Room(tenant, None, size)
        share = self._share(tenant)
        # Whoever is in line does not begin to wait when it is their turn.
        async with patience(), share.lock:
            lease = share.lease
            if lease is None or not lease.fits(size):
                await self._give_back(tenant, share)
                lease = share.lease = await self._lease(tenant, share, limits, size)
            lease.images -= 1
            lease.bytes -= size
            lease.used_at = time.monotonic()
            return Room(tenant, lease.lease_id, size)

    async def rate(self, tenant: str) -> None:
        """Take one upload of this minute; raises as `search`."""
        await self._registry.ready()
        await self._rate(tenant, "uploads", self.limits(tenant).uploadsPerMinute)

    async def search(self, tenant: str) -> None:
        """Take one search of this minute.

        Raises
        ------
        RateLimited
        RegistryUnavailable, BrokerUnavailable
            Nobody can tell whether the tenant may.
        """
        await self._registry.ready()
        await self._rate(tenant, "searches", self.limits(tenant).searchesPerMinute)

    async def unused(self, room: Room) -> None:
        """Give back room that no picture fills."""
        if room.lease is None:
            return
        share = self._shares.get(room.tenant)
        lease = share.lease if share is not None else None
        if lease is not None and lease.lease_id == room.lease and not lease.returned:
            lease.images += 1
            lease.bytes += room.size
        else:
            with contextlib.suppress(DeepLensError):  # it is free again after a while
                await self._tell(ChangeKind.REFUSED, room.tenant, room.lease, 1, room.size)

    def _share(self, tenant: str) -> _Share:
        share = self._shares.setdefault(tenant, _Share())
        share.used_at = time.monotonic()
        return share

    async def _lease(self, tenant: str, share: _Share, limits: Limits, size: int) -> _Lease:
        if share.refused_until > time.monotonic():
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
            if outcome == GOING:
                raise TenantDeleting
            granted = row.leases.get(lease_id)
            if not outcome and granted is not None:
                share.recalls = row.recalls
                return _Lease(lease_id, granted.images, granted.bytes, time.monotonic())
            if not row.leases:
                break
            await asyncio.sleep(_ASK_AGAIN_S)
        share.refused_until = time.monotonic() + _REFUSED_S
        raise self._full(tenant, limits)

    def _full(self, tenant: str, limits: Limits) -> QuotaExceeded:
        row = self._registry.find(tenant)
        has = row.usage.known if row is not None else None
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
        share, minute = self._share(tenant), int(time.time() // _MINUTE_S)
        tokens = share.uploads if kind == "uploads" else share.searches
        async with patience(), tokens.lock:
            if tokens.minute != minute or tokens.left == 0:
                tokens.left = await self._tokens_of(tenant, kind, max(1, limit // _RATE_PARTS))
                tokens.minute = minute
            is_refused = tokens.left < 1
            tokens.left = -1 if is_refused else tokens.left - 1
        if is_refused:
            error = RateLimited(
                f"The tenant {tenant} may have {limit:,} {kind} in a minute; try again in the next."
            )
            error.retry_after = _MINUTE_S - int(time.time() % _MINUTE_S)
            raise error

    async def _tokens_of(self, tenant: str, kind: _Kind, batch: int) -> int:
        """Return how many more of `kind` this worker may do in this minute."""
        for count in sorted({batch, 1}, reverse=True):
            data = TenantChangeData(kind=ChangeKind.RATE.value, limits=self._defaults)
            setattr(data, kind, count)
            outcome, _ = await self._registry.change(tenant, data)
            if outcome == GOING:
                raise TenantDeleting
            if not outcome:
                return count
        return 0

    def _look(self, row: Tenant) -> None:
        """Give back what is unused when others ask in vain."""
        share = self._shares.get(row.tenantId)
        if share is not None and share.lease is not None and row.recalls > share.recalls:
            share.recalls = row.recalls
            self.add_future(self._recall(row.tenantId, share))

    async def _recall(self, tenant: str, share: _Share) -> None:
        if not share.lock.locked():  # else this very worker is asking, and has nothing left
            async with share.lock:
                with contextlib.suppress(DeepLensError):
                    await self._give_back(tenant, share)

    async def _give_back(self, tenant: str, share: _Share) -> None:
        """Return what is unfilled of the lease, and be it nothing: the rest of it is filled."""
        lease, share.lease = share.lease, None
        if lease is None:
            return
        lease.returned = True
        try:
            kind = ChangeKind.RETURN
            await self._tell(kind, tenant, lease.lease_id, lease.images, lease.bytes)
        except BaseException:
            share.lease = lease
            raise

    async def _tell(
        self, kind: ChangeKind, tenant: str, lease_id: str, images: int, size: int
    ) -> None:
        data = TenantChangeData(kind=kind.value, lease=lease_id, images=images, bytes=size)
        await self._registry.tell(tenant, data)

    @Service.task
    async def _return_idle(self) -> None:
        while not self.should_stop:
            await self.sleep(1.0)
            now = time.monotonic()
            for tenant, share in list(self._shares.items()):
                if share.lease is not None and share.lease.used_at < now - self._timings.idle_s:
                    await self._recall(tenant, share)
                elif not share.is_busy and share.used_at < now - self._timings.forget_s:
                    del self._shares[tenant]

    async def on_stop(self) -> None:
        for tenant, share in list(self._shares.items()):
            with contextlib.suppress(DeepLensError):
                await self._give_back(tenant, share)
