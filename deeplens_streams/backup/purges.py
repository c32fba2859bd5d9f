"""Which tenants were purged, and when: what they had before that is not to come back."""

from contextlib import aclosing

import orjson

from deeplens_streams.storage import Blobs, layout
from models.deletion import TenantPurge
from models.records import MalformedRecord

_ACTION = "look up purges"


class Purges:
    """The time of each tenant's last purge, as a storage or a backup tells it."""

    def __init__(self) -> None:
        self._cutoffs: dict[str, str] = {}

    async def read(self, blobs: Blobs) -> None:
        async with aclosing(blobs.walk("purged", action=_ACTION)) as keys:
            async for key in keys:
                if key.count("/") != 1:  # of a tenant that is called so
                    continue
                raw = await blobs.get(key, action=_ACTION)
                try:
                    purge = TenantPurge.from_wire(orjson.loads(raw or b""))
                    cutoff = purge.emptiedAt or purge.requestedAt
                    layout.epoch_ms(cutoff)
                except (MalformedRecord, ValueError):
                    continue
                known = self._cutoffs.get(purge.tenantId, "")
                self._cutoffs[purge.tenantId] = max(known, cutoff)

    def covers(self, tenant: str, ms: int) -> bool:
        """Tell whether what a tenant had at that time, milliseconds since 1970, was purged."""
        cutoff = self._cutoffs.get(tenant)
        return cutoff is not None and ms <= layout.epoch_ms(cutoff)

    def covers_day(self, tenant: str, day: str) -> bool:
        """The same of a day, ``YYYY-MM-DD``."""
        return day <= self._cutoffs.get(tenant, "")[: len(day)]
