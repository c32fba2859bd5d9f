"""A tenant's room, as its row has it: what is used, what is filled, and what is handed out.

A picture's room is part of a lease until the worker that has the lease gives the rest of it
back. From then on what was not given back is filled, and waits to be counted as used. So nothing
of a lease is free again because pictures are counted late.
"""

from datetime import datetime, timedelta

from models.tenants import Count, Lease, Tenant, TenantChange, TenantChangeData, Usage

#: Why room was refused, as `Tenant.outcomes` says it.
FULL = "full"
#: A lease hands out this part of the room that is left, so that little lies idle near the limit.
_PART = 8
#: Age of a lease whose holder is dead: one that lives gives it back long before.
LEASE_S = 600.0
#: Days after which filled room that was never counted is free again. Its events are no longer
#: there, or a worker died in the middle of that upload.
FILLED_DAYS = 30
#: Room where there is no limit.
_ENDLESS = 2**50


def count(row: Tenant, partition: int | None, counts: list[Count]) -> None:
    """Add pictures that came and went, each offset of the progress topic once."""
    name = str(partition)
    seen = row.counted.get(name, -1)
    for each in counts:
        if each.offset > seen:
            # Below 0 where what went was never counted: a recount corrects the sum by what is
            # missing, so nothing of it may be left out meanwhile.
            row.usage.images += each.images
            row.usage.bytes += each.bytes
            if each.lease:
                _free(row, each.lease, each.leaseImages, each.leaseBytes)
            seen = row.counted[name] = each.offset


def lease(row: Tenant, data: TenantChangeData, event: TenantChange) -> str | None:
    """Hand out room for as many pictures as are asked for, or as it is well to."""
    _forget_old(row, event.timestamp)
    limits, taken = row.limits.over(data.limits), [row.usage.known, *_filled(row).values()]
    held = list(row.leases.values())
    images = _room(limits.images, [each.images for each in (*taken, *held)])
    size = _room(limits.bytes, [each.bytes for each in (*taken, *held)])
    if images < 1 or size < data.bytes:
        row.recalls += bool(row.leases)
        return FULL
    granted = min(data.images, max(1, images // _PART))
    part = max(data.bytes, size // _PART)
    row.leases[data.lease or event.eventId] = Lease(
        images=granted,
        bytes=part if limits.bytes is None else min(data.bytes * granted, part),
        at=event.timestamp,
    )
    return None


def give_back(row: Tenant, data: TenantChangeData, event: TenantChange) -> None:
    """Take back what is unfilled of a lease: the rest of it is filled. Said again, it is nothing.

    Leases of the same day are one sum, so a row does not grow while pictures wait to be counted.
    """
    held = row.leases.pop(data.lease or "", None)
    if held is None:
        return
    images, size = max(0, held.images - data.images), max(0, held.bytes - data.bytes)
    if images or size:
        row.filled = _filled(row)
        today = row.filled.setdefault(event.timestamp[:10], Usage())
        today.images += images
        today.bytes += size


def refused(row: Tenant, data: TenantChangeData, _event: TenantChange) -> None:
    """Have room be free that was taken for a picture which was refused in the end."""
    _free(row, data.lease or "", data.images, data.bytes)


def _free(row: Tenant, lease_id: str, images: int, size: int) -> None:
    """Take so much from a lease; where that was given back, it is filled room."""
    held: Lease | Usage | None = row.leases.get(lease_id)
    # The latest day first: what a day has in the end was never counted, and grows old.
    days = _filled(row)
    for part in [held] if held is not None else [days[day] for day in sorted(days, reverse=True)]:
        freed_images, freed_bytes = min(images, part.images), min(size, part.bytes)
        part.images -= freed_images
        part.bytes -= freed_bytes
        images, size = images - freed_images, size - freed_bytes
    row.filled = {day: left for day, left in days.items() if left.images or left.bytes}


def _filled(row: Tenant) -> dict[str, Usage]:
    return row.filled or {}


def _room(limit: int | None, taken: list[int]) -> int:
    return _ENDLESS if limit is None else max(0, limit - sum(taken))


def _forget_old(row: Tenant, now: str) -> None:
    moment = datetime.fromisoformat(now)
    row.leases = {
        lease_id: held
        for lease_id, held in row.leases.items()
        if (moment - datetime.fromisoformat(held.at)).total_seconds() <= LEASE_S
    }
    first = (moment - timedelta(days=FILLED_DAYS)).date().isoformat()
    row.filled = {day: left for day, left in _filled(row).items() if day >= first}
