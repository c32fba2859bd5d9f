"""What storage keeps of the registry of tenants: one small object a row, for when Kafka is lost.

Whoever owns a tenant's row writes its object at each change but mere counting. Beside it lie the
proofs of tenants that were deleted, by which a row of before is refused wherever it comes from.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import cast

import orjson
import structlog

from deeplens_streams.errors import DeepLensError, StorageFull, StorageUnavailable
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import AlreadyThere, Blobs, Write
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.storage.tombstones import Tombstones
from models.deletion import TenantPurge
from models.records import SCHEMA_VERSION, MalformedRecord, is_readable
from models.tenants import SYSTEM, Tenant, TenantRecord, TenantState

log = structlog.get_logger()

#: Seconds that a change waits for storage before it goes on without, and the object follows.
PATIENCE_S = 3.0
#: Others that write the same object meanwhile, at the most, before this one gives way.
_TRIES = 64

_ACTION = "keep a tenant's row"


class DamagedRecord(DeepLensError):
    """What is kept of a tenant cannot be read; the operator's log names it."""

    code = "DAMAGED_METADATA"


class _Newer(DamagedRecord):
    """It is of another major version, and for that one to write."""


class Verdict(Enum):
    """What the last purge of a tenant's name says of a row or a record."""

    STANDS = "stands"
    GOES = "goes"
    """It is of a tenant that is being removed."""
    GONE = "gone"
    """It is of a tenant that was removed, and is refused for ever."""
    UNKNOWN = "unknown"
    """What is kept of the purge cannot be read: it is refused, and nothing of it is removed."""


def judged(row: Tenant | TenantRecord, purge: TenantPurge | None) -> Verdict:
    """Tell whether a row is of before the purge.

    Clocks differ, so one that knows of the purge's end is of behind it, whatever it says of when it
    was made, and the one that was to be purged is of before it.
    """
    if purge is None:
        return Verdict.STANDS
    end, purged = purge.emptiedAt or purge.completedAt, purge.tenantCreatedAt or ""
    if end is None:
        is_older = row.createdAt <= max(purge.requestedAt, purged)
        return Verdict.GOES if is_older else Verdict.STANDS
    is_later = row.createdAt > max(end, purged) or (row.purgedAt or "") >= end
    return Verdict.STANDS if is_later else Verdict.GONE


@dataclass(frozen=True, slots=True)
class _Removal:
    """The object of a row that was made at `created_at` is to go."""

    created_at: str | None


class TenantRecords:
    """The objects of all tenants, and what is still to be written of them."""

    def __init__(self, blobs: Blobs, tombstones: Tombstones) -> None:
        self._blobs, self._tombstones = blobs, tombstones
        #: What storage did not take.
        self._owed: dict[str, TenantRecord | _Removal] = {}
        #: By tenant: `createdAt` of the row that no purge is known to refuse.
        self._passed: dict[str, str] = {}
        #: Tenants of which there is a purge; None before they were listed.
        self._purged: set[str] | None = None

    # Writing ------------------------------------------------------------------------------

    async def keep(self, record: TenantRecord) -> None:
        """Have an object be there that is no older than `record`.

        Where storage does not answer it is written later, by `settle`: nothing waits for it.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.put(record)
            self._owed.pop(record.tenantId, None)
        except (StorageUnavailable, StorageFull, TimeoutError) as error:
            self._owe(record.tenantId, record, error)

    async def remove(self, tenant: str, *, created_at: str | None) -> None:
        """Have the object of a tenant that was purged go, sooner or later.

        Parameters
        ----------
        created_at : of its row, where there was one.
        """
        self.look_again(tenant)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._remove(tenant, created_at)
            self._owed.pop(tenant, None)
        except (StorageUnavailable, StorageFull, TimeoutError) as error:
            self._owe(tenant, _Removal(created_at), error)

    async def settle(self) -> None:
        """Write what is owed.

        Raises
        ------
        StorageUnavailable, StorageFull
            The rest of it is left to the next time.
        """
        for tenant, owed in list(self._owed.items()):
            if isinstance(owed, _Removal):
                await self._remove(tenant, owed.created_at)
            else:
                await self.put(owed)
            if self._owed.get(tenant) is owed:
                del self._owed[tenant]

    async def put(self, record: TenantRecord) -> None:
        """Write an object unless there is a later one of the tenant; a damaged one is replaced."""
        key, said = object_keys.registry_key(record.tenantId), orjson.dumps(record.to_wire())
        for _ in range(_TRIES):
            old = await self._blobs.get(key, action=_ACTION)
            if old is None:
                with suppress(AlreadyThere):
                    await self._blobs.put(Write(key, said, if_absent=True), action=_ACTION)
                    return
                continue
            if old == said or _is_later(key, old, record):
                return
            if await self._blobs.swap(Write(key, said), old=old, action=_ACTION):
                return

    async def _remove(self, tenant: str, created_at: str | None) -> None:
        """Remove the object if it is of the row that went, or of before the tenant's purge."""
        try:
            record = await self.find(tenant)
        except DamagedRecord:
            record = None
        is_its = record is None or record.createdAt == created_at
        if is_its or await self.judge(cast(TenantRecord, record)) is Verdict.GONE:
            await self._blobs.delete(
                object_keys.registry_key(tenant), action="forget a tenant's row"
            )

    def _owe(self, tenant: str, owed: "TenantRecord | _Removal", error: Exception) -> None:
        if tenant not in self._owed:
            log.warning(
                "storage does not take what is kept of a tenant; it follows",
                tenant=tenant,
                reason=repr(error)[:200],
            )
        self._owed[tenant] = owed

    # Reading ------------------------------------------------------------------------------

    async def find(self, tenant: str) -> TenantRecord | None:
        """Return what is kept of a tenant, or None if nothing is.

        Raises
        ------
        DamagedRecord
            It cannot be read.
        """
        key = object_keys.registry_key(tenant)
        raw = await self._blobs.get(key, action="read what is kept of a tenant")
        return None if raw is None else _parsed(key, raw)

    async def tenants(self) -> set[str]:
        """Return whose rows are kept, `SYSTEM` among them."""
        keys = await self._blobs.children(
            object_keys.REGISTRY, action="list what is kept of tenants"
        )
        return {
            tenant for key in keys if (tenant := object_keys.read_registry_key(key)) is not None
        }

    # What is of before a purge ------------------------------------------------------------

    async def list_purged(self) -> None:
        """Learn of which tenants there is a purge: rows of the others need no look at storage.

        Purges that begin later are learned of by `look_again`.
        """
        self._passed.clear()
        self._purged = None
        self._purged = await self._tombstones.purged_tenants()

    def look_again(self, tenant: str) -> None:
        """Note that a tenant is being removed, or was: what was known of its purge is old."""
        self._passed.pop(tenant, None)
        if self._purged is not None:
            self._purged.add(tenant)

    async def judge(self, row: Tenant | TenantRecord) -> Verdict:
        """Tell whether a row is of a tenant that was deleted; one look at storage a row.

        Raises
        ------
        StorageUnavailable
            Nobody can tell.
        """
        tenant = row.tenantId
        if tenant == SYSTEM or self._passed.get(tenant) == row.createdAt:
            return Verdict.STANDS
        purge = None
        if self._purged is None or tenant in self._purged:
            try:
                purge = await self._tombstones.find_purge(tenant=tenant)
            except DamagedMetadata:
                # Who was made behind a purge says so, and who is being removed is refused anyway.
                is_later = row.purgedAt is not None or row.state == TenantState.DELETING
                return Verdict.STANDS if is_later else Verdict.UNKNOWN
        verdict = judged(row, purge)
        if verdict is Verdict.STANDS:
            self._passed[tenant] = row.createdAt
        is_told = row.state == TenantState.DELETING
        return Verdict.STANDS if verdict is Verdict.GOES and is_told else verdict


def _is_later(key: str, raw: bytes, record: TenantRecord) -> bool:
    try:
        return _parsed(key, raw).order > record.order
    except _Newer:
        return True
    except DamagedRecord:
        return False


def _parsed(key: str, raw: bytes) -> TenantRecord:
    reason, refusal = "it is of another tenant", DamagedRecord
    try:
        said = orjson.loads(raw)
        if isinstance(said, dict) and not is_readable(
            str(said.get("schemaVersion", SCHEMA_VERSION))
        ):
            refusal = _Newer
        record = TenantRecord.from_wire(said)
        if object_keys.registry_key(record.tenantId) == key:
            return record
    except (orjson.JSONDecodeError, MalformedRecord, DeepLensError) as error:
        reason = str(error)
    log.error("what is kept of a tenant is damaged", key=key, reason=reason)
    raise refusal
