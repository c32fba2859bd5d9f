"""Which tenants were purged, and when: what they had before that is not to come back."""

import re
from contextlib import aclosing, suppress

import orjson

from deeplens_streams.storage import Blobs, object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata, read_pointer
from models.deletion import TenantPurge
from models.records import MalformedRecord

_ACTION = "look up purges"
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


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
                    object_keys.epoch_ms(cutoff)
                except (MalformedRecord, ValueError):
                    continue
                known = self._cutoffs.get(purge.tenantId, "")
                self._cutoffs[purge.tenantId] = max(known, cutoff)

    def covers(self, tenant: str, ms: int) -> bool:
        """Tell whether what a tenant had at that time, milliseconds since 1970, was purged."""
        cutoff = self._cutoffs.get(tenant)
        return cutoff is not None and ms <= object_keys.epoch_ms(cutoff)

    def covers_file(self, tenant: str, key: str, pointer: bytes | None) -> bool:
        """Tell whether what lies under a day was purged, by the time that its image's pointer says.

        Where no pointer says it, the day does; what is of the purge's own day may be of a tenant
        that was made since, and counts as that one's.
        """
        cutoff, day = self._cutoffs.get(tenant), key.split("/")[2:3]
        if cutoff is None or not day or not _DAY.fullmatch(day[0]):
            return False
        image_id = object_keys.read_file_key(key)
        if pointer is not None and image_id is not None:
            with suppress(DamagedMetadata):
                led = read_pointer(image_id, pointer)
                if led.tenant == tenant and object_keys.day_of(led.ms) == day[0]:
                    return self.covers(tenant, led.ms)
        return day[0] < object_keys.day_of(object_keys.epoch_ms(cutoff))
