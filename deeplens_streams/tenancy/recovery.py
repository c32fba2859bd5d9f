"""What storage says of the registry's rows: which are of deleted tenants, and which are missing."""

import asyncio
from collections.abc import Collection, Iterable, Mapping

import structlog

from deeplens_streams.errors import StorageUnavailable
from deeplens_streams.storage.tenant_records import (
    PATIENCE_S,
    DamagedRecord,
    TenantRecords,
    Verdict,
)
from models.tenants import Tenant, TenantRecord, TenantState
from tables.tenants import restored

log = structlog.get_logger()

#: Seconds that a start waits for storage; what it would have said is asked for again.
START_S = 15.0
#: Rows that are looked at together.
_AT_ONCE = 16


class TenantRecovery:
    """Rows as one api process may believe them.

    While storage is away rows are believed as they are: it has nothing that anybody could get at by
    them. They are looked at again as soon as it answers.

    Attributes
    ----------
    is_unjudged : whether rows are believed that nobody could look at.
    lost_marks : by tenant, offsets in `Tenant.counted` that are of a topic which is no more.
    """

    def __init__(self, records: TenantRecords) -> None:
        self._records = records
        self.is_unjudged = False
        self.lost_marks: dict[str, dict[str, int]] = {}

    async def standing(self, rows: Mapping[str, Tenant]) -> dict[str, Tenant]:
        """Return the rows, all that there are, without those of deleted tenants."""
        try:
            async with asyncio.timeout(START_S):
                await self._records.list_purged()
                found = await self._judged(rows.values())
        except (StorageUnavailable, TimeoutError):
            self.is_unjudged = True
            return dict(rows)
        self.is_unjudged = False
        return {row.tenantId: row for row in found if row is not None}

    async def _judged(self, rows: Iterable[Tenant]) -> list[Tenant | None]:
        waiting, found = list(rows), list[Tenant | None]()
        for start in range(0, len(waiting), _AT_ONCE):
            some = waiting[start : start + _AT_ONCE]
            found += await asyncio.gather(*map(self._believed, some))
        return found

    async def _believed(self, row: Tenant) -> Tenant | None:
        verdict = await self._records.judge(row)
        if verdict in {Verdict.GONE, Verdict.UNKNOWN}:
            log.warning(
                "a row of a deleted tenant is refused", tenant=row.tenantId, verdict=verdict.value
            )
            return None
        if verdict is Verdict.GOES:
            row.state = TenantState.DELETING.value
        return row

    async def admitted(self, tenant: str, row: Tenant | None) -> Tenant | None:
        """Return a row that changed, or None where its tenant is gone."""
        if row is None or row.state == TenantState.DELETING:
            self._records.look_again(tenant)
        if row is None:
            return None
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._believed(row)
        except (StorageUnavailable, TimeoutError):
            self.is_unjudged = True
            return row

    async def missing(self, rows: Mapping[str, Tenant]) -> Collection[Tenant]:
        """Return what storage keeps beside these rows, all that there are: Kafka was lost."""
        found: list[Tenant] = []
        try:
            async with asyncio.timeout(START_S):
                absent = sorted(await self._records.tenants() - rows.keys())
                for start in range(0, len(absent), _AT_ONCE):
                    some = absent[start : start + _AT_ONCE]
                    kept = await asyncio.gather(*map(self._kept, some))
                    found += [restored(None, record) for record in kept if record is not None]
        except (StorageUnavailable, TimeoutError):
            log.warning("storage does not say which tenants it keeps; it is asked again")
        if found:
            log.warning(
                "tenants are read back from storage, because Kafka does not have them",
                tenants=len(found),
            )
        return found

    async def _kept(self, tenant: str) -> TenantRecord | None:
        """Return what is kept of a tenant, unless it cannot be read or is of a deleted one."""
        try:
            record = await self._records.find(tenant)
        except DamagedRecord:
            return None
        verdict = Verdict.GONE if record is None else await self._records.judge(record)
        if record is None or verdict in {Verdict.GONE, Verdict.UNKNOWN}:
            return None
        if verdict is Verdict.GOES:
            record.state = TenantState.DELETING.value
        return record

    def note_ends(self, rows: Iterable[Tenant], ends: Mapping[int, int]) -> None:
        """Find what rows have counted beyond the end of the progress topic, which was lost.

        Parameters
        ----------
        ends : by partition, where it ended after the rows were read.
        """
        self.lost_marks = {}
        for row in rows:
            lost = {
                name: mark for name, mark in row.counted.items() if mark >= ends.get(int(name), 0)
            }
            if lost:
                self.lost_marks[row.tenantId] = lost
