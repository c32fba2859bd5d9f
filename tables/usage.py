"""What an image counts for its tenant: from which report on, and until which.

A row says so by offsets of the progress topic, and each count that follows from one is the same at
every redelivery.
"""

from models.status import ImageProgress, ImageRow
from models.tenants import Count


def count(row: ImageRow, event: ImageProgress, *, before: ImageRow | None) -> None:
    """Have a new row say from where on its image counts: what the one before said, or now.

    Parameters
    ----------
    row : as it is to be, from here on with its size, its lease and where it counts from.
    """
    if before is not None and before.countedAt is not None:
        row.fileSize, row.lease, row.countedAt = before.fileSize, before.lease, before.countedAt
    elif event.data.fileSize is not None:
        row.fileSize, row.lease = event.data.fileSize, event.data.lease
        row.countedAt = event.place[1]


def uncount(row: ImageRow, event: ImageProgress, *, before: ImageRow | None) -> None:
    """Have the new row of an image that is no more say that it counts no longer."""
    if before is not None:
        row.fileSize, row.lease, row.countedAt = before.fileSize, before.lease, before.countedAt
    if row.countedAt is None:  # it will never count, and only its room is free again
        row.fileSize, row.lease = event.data.fileSize, event.data.lease
    row.uncountedAt = event.place[1]


def counts(row: ImageRow, event: ImageProgress) -> list[Count]:
    """Return what `event` means for the tenant's usage; the same each time it is read."""
    size, offset = row.fileSize, event.place[1]
    if size is None:
        return []
    found = Count(offset=offset, images=0, bytes=0)
    if offset == row.countedAt:
        found.images, found.bytes = 1, size
    elif offset != row.uncountedAt:
        return []
    elif row.countedAt is not None:
        found.images, found.bytes = -1, -size
        return [found]
    elif row.lease is None:
        return []
    found.lease, found.leaseImages, found.leaseBytes = row.lease, 1, size
    return [found]
