"""What storage keeps of tenants: written at each change, read back, refused for ever if deleted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from obstore.store import LocalStore, MemoryStore

from agents import tenants as agent
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import DELETED, TENANT_CHANGES
from deeplens_streams.errors import StorageUnavailable
from deeplens_streams.services import Services
from deeplens_streams.storage import Blobs, object_keys
from deeplens_streams.storage.blobs.local import LocalBlobs
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.storage.tenant_records import DamagedRecord, TenantRecords, Verdict
from deeplens_streams.storage.tombstones import Tombstones
from deeplens_streams.tenancy.reconciling import TenantReconciler
from deeplens_streams.tenancy.recovery import TenantRecovery
from deeplens_streams.tenancy.registry import Registry
from models.deletion import TenantPurge
from models.tenants import (
    SYSTEM,
    ApiKey,
    ChangeKind,
    Limits,
    Tenant,
    TenantChange,
    TenantChanged,
    TenantRecord,
    milliseconds,
    record_of,
)
from tests.support.tenant_changes import LATER, NEXT_YEAR, NOW, count, event, tenant

OLD = "2025-12-31T00:00:00.000Z"


class FaultyBlobs(Blobs):
    """In memory, away when a test says so."""

    is_away = False

    async def get(self, key: str, *, action: str) -> bytes | None:
        self._asked()
        return await super().get(key, action=action)

    async def put(self, *writes: Write, action: str) -> None:
        self._asked()
        await super().put(*writes, action=action)

    async def children(self, path: str, *, action: str) -> Any:
        self._asked()
        return await super().children(path, action=action)

    def _asked(self) -> None:
        if self.is_away:
            raise StorageUnavailable


class Part:
    """One worker: its table of tenants, its registry and what it compares; storage is shared."""

    def __init__(self, blobs: Blobs | None = None, *, is_open: bool = False) -> None:
        self.blobs = blobs or FaultyBlobs(MemoryStore())
        tombstones = Tombstones(self.blobs)
        self.records = TenantRecords(self.blobs, tombstones)
        services = SimpleNamespace(tenant_records=self.records, tombstones=tombstones)
        self.services, self.is_open = cast(Services, services), is_open
        self.rows: dict[bytes, Tenant] = {}
        self.sent: list[Message] = []
        self.registry = Registry(self.publish, is_open=is_open)
        self.recovery = TenantRecovery(self.records)
        self.reconciler = TenantReconciler(
            self.registry, self.recovery, self.services, self.publish
        )

    async def publish(self, *messages: Message) -> None:
        for message in messages:
            self.sent.append(message)
            if message.topic is TENANT_CHANGES:
                await self.change(cast(TenantChange, message.event))

    async def change(self, change: TenantChange) -> None:
        for message in await agent.process(change, self.rows, self.services, is_open=self.is_open):
            row = None if message.is_tombstone else cast(TenantChanged, message.event).data
            row = await self.recovery.admitted(message.event.tenantId, row)
            self.registry.take(message.event.tenantId, row)

    async def start(self) -> None:
        """Read all rows, as a start does."""
        rows = {key.decode(): row for key, row in self.rows.items()}
        standing = await self.recovery.standing(rows)
        self.registry.replace(standing, from_storage=await self.recovery.missing(standing))

    async def made(self) -> None:
        """Make a tenant with a limit and a key."""
        await self.change(event(ChangeKind.CREATE, limits=Limits(images=7)))
        await self.change(event(ChangeKind.ADD_KEY, key=key()))
        await self.change(event(ChangeKind.PROVISIONED))

    async def deleted(self, *, emptied_at: str = LATER) -> None:
        await self.change(event(ChangeKind.DELETE))
        purge = TenantPurge(tenantId="acme", requestedAt=NOW, emptiedAt=emptied_at)
        await self.services.tombstones.put_purge(purge)
        await self.change(event(ChangeKind.PURGED, at=emptied_at))


def key(name: str = "k") -> ApiKey:
    return ApiKey(keyId=name, sha256="0" * 64, scopes=["read"], createdAt=NOW)


@pytest.fixture(params=["memory", "folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    is_folder = request.param == "folder"
    return LocalBlobs(LocalStore(tmp_path)) if is_folder else FaultyBlobs(MemoryStore())


async def test_each_change_but_counting_is_in_storage_before_it_is_announced(blobs: Blobs) -> None:
    part = Part(blobs)
    await part.made()
    record = await part.records.find("acme")
    assert record is not None
    assert (record.limits.images, record.provisioned) == (7, True)
    assert record.revision == milliseconds(NOW) + 3
    assert [each.keyId for each in record.keys] == ["k"]
    await part.change(event(ChangeKind.COUNT, partition=0, counts=[count(1)]))
    await part.change(event(ChangeKind.RATE, searches=1))
    assert await part.records.find("acme") == record
    await part.change(event(ChangeKind.EXPIRE_KEY, keyId="k"))
    record = await part.records.find("acme")
    assert record is not None
    assert record.keys[0].revokedAt == NOW
    operators = event(ChangeKind.ADD_KEY, key=key("o"))
    operators.tenantId = SYSTEM
    await part.change(operators)
    assert await part.records.tenants() == {"acme", SYSTEM}


async def test_an_older_row_does_not_replace_a_later_one(blobs: Blobs) -> None:
    part = Part(blobs)
    await part.made()
    last = part.rows[b"acme"]
    stale = record_of(tenant(images=1))
    await part.records.put(stale)
    assert await part.records.find("acme") == record_of(last)
    stale.createdAt, stale.revision = LATER, 0
    await part.records.put(stale)
    assert await part.records.find("acme") == stale, "another tenant of that name"


async def test_what_an_older_worker_changed_is_not_taken_back_by_what_storage_kept() -> None:
    part = Part()
    await part.made()
    await part.start()
    # A worker of before there were revisions has the row for a while: it writes it without one.
    wire = part.rows[b"acme"].to_wire()
    del wire["revision"], wire["recounts"]
    revoked = Tenant.from_wire(wire)
    revoked.keys[0].revokedAt = revoked.updatedAt = LATER
    part.rows[b"acme"] = revoked
    await part.start()
    part.sent.clear()
    await part.reconciler.look()
    assert part.sent == []
    record = await part.records.find("acme")
    assert record is not None
    assert record.keys[0].revokedAt == LATER
    await part.change(event(ChangeKind.RESTORE))
    assert part.rows[b"acme"].keys[0].revokedAt == LATER
    await part.change(event(ChangeKind.LIMIT, at=NEXT_YEAR, limits=Limits(images=1)))
    record = await part.records.find("acme")
    assert record is not None
    assert (record.limits.images, record.keys[0].revokedAt) == (1, LATER)


async def test_a_revoke_works_while_storage_is_away_and_the_object_follows() -> None:
    part = Part()
    await part.made()
    part.blobs.is_away = True  # type: ignore[attr-defined]
    await part.change(event(ChangeKind.EXPIRE_KEY, keyId="k"))
    found = part.registry.holder("k")
    assert found is not None
    assert found[1].revokedAt == NOW
    with pytest.raises(StorageUnavailable):
        await part.records.settle()
    part.blobs.is_away = False  # type: ignore[attr-defined]
    await part.records.settle()
    record = await part.records.find("acme")
    assert record is not None
    assert record.keys[0].revokedAt == NOW


async def test_tenants_are_read_back_when_kafka_is_lost(blobs: Blobs) -> None:
    before = Part(blobs)
    await before.made()
    await before.change(event(ChangeKind.COUNT, partition=0, counts=[count(5000)]))
    part = Part(blobs)
    await part.start()
    assert part.registry.provisional == {"acme"}
    assert part.registry.holder("k") is not None, "keys work before Kafka has the row again"
    part.registry.mark_whole()
    await part.reconciler.settle()
    row = part.rows[b"acme"]
    kept = record_of(before.rows[b"acme"])
    assert (row.state, row.limits, row.keys) == (kept.state, kept.limits, kept.keys)
    assert (record_of(row).order, row.provisioned) == (kept.order, True)
    assert (row.usage.images, row.counted) == (0, {}), "offsets begin at 0 again"
    assert not part.registry.provisional
    await part.change(event(ChangeKind.COUNT, partition=0, counts=[count(0)]))
    assert part.rows[b"acme"].usage.images == 1
    part.sent.clear()
    await part.reconciler.settle()
    await part.reconciler.look()
    assert part.sent == []


async def test_a_change_of_a_tenant_without_a_row_reads_it_back_first(blobs: Blobs) -> None:
    """As a revoke does that is faster than the start's own reading back."""
    await Part(blobs).made()
    part = Part(blobs)
    await part.change(event(ChangeKind.EXPIRE_KEY, keyId="k"))
    row = part.rows[b"acme"]
    assert (row.keys[0].revokedAt, row.limits.images) == (NOW, 7)


async def test_a_row_that_is_older_than_storage_takes_what_that_keeps(blobs: Blobs) -> None:
    before = Part(blobs)
    await before.made()
    part = Part(blobs)
    part.rows[b"acme"] = tenant(images=1)
    part.rows[b"acme"].usage.images = 3
    await part.start()
    await part.reconciler.look()
    row = part.rows[b"acme"]
    assert (row.limits.images, len(row.keys), row.usage.images) == (7, 1, 3)


async def test_a_key_that_was_revoked_in_an_older_row_stays_so(blobs: Blobs) -> None:
    """Kafka was an older copy, and storage away when the key was revoked."""
    before = Part(blobs)
    await before.made()
    part = Part(blobs)
    part.rows[b"acme"] = tenant()
    part.rows[b"acme"].keys = [key()]
    part.rows[b"acme"].keys[0].revokedAt = LATER
    await part.change(event(ChangeKind.RESTORE))
    row = part.rows[b"acme"]
    assert (row.limits.images, row.keys[0].revokedAt) == (7, LATER)


async def test_what_storage_lost_is_written_from_kafka(blobs: Blobs) -> None:
    part = Part(blobs)
    await part.made()
    await part.start()
    kept = await part.records.find("acme")
    name = object_keys.registry_key("acme")
    await blobs.delete(name, action="lose it")
    await part.reconciler.look()
    assert await part.records.find("acme") == kept
    await blobs.put(Write(name, b'{"tenantId": "ac'), action="cut it short")
    with pytest.raises(DamagedRecord):
        await part.records.find("acme")
    await part.reconciler.look()
    assert await part.records.find("acme") == kept


async def test_a_damaged_object_hides_no_other(blobs: Blobs) -> None:
    await Part(blobs).made()
    for name, said in (("one", b""), ("two", b"[]"), ("three", b'{"tenantId": "acme"}')):
        await blobs.put(Write(object_keys.registry_key(name), said), action="damage it")
    await blobs.put(Write(f"{object_keys.REGISTRY}/No Tenant.json", b"{}"), action="write nonsense")
    part = Part(blobs)
    await part.start()
    assert [row.tenantId for row in part.registry.tenants()] == ["acme"]
    await part.reconciler.settle()
    await part.reconciler.look()
    assert set(part.rows) == {b"acme"}


async def test_an_object_of_another_major_version_is_left_alone(blobs: Blobs) -> None:
    part = Part(blobs)
    await part.made()
    kept = await part.records.find("acme")
    assert kept is not None
    kept.schemaVersion = "2.0"
    name, said = object_keys.registry_key("acme"), _raw(kept)
    await blobs.put(Write(name, said), action="write it with another version")
    await part.start()
    await part.reconciler.look()
    await part.change(event(ChangeKind.SUSPEND))
    assert await blobs.get(name, action="look at it") == said


async def test_what_a_newer_version_keeps_comes_back(blobs: Blobs) -> None:
    before = Part(blobs)
    await before.made()
    newer = before.rows[b"acme"].to_wire() | {"plan": "gold", "schemaVersion": "1.7"}
    before.rows[b"acme"] = Tenant.from_wire(newer)
    await before.change(event(ChangeKind.SUSPEND))
    part = Part(blobs)
    await part.change(event(ChangeKind.RESTORE))
    wire = part.rows[b"acme"].to_wire()
    assert (wire["plan"], wire["schemaVersion"], wire["state"]) == ("gold", "1.7", "suspended")


async def test_a_deleted_tenant_never_comes_back(blobs: Blobs) -> None:
    part = Part(blobs)
    await part.made()
    old, record = part.rows[b"acme"], await part.records.find("acme")
    await part.deleted()
    assert (part.rows, await part.records.tenants()) == ({}, set())
    # From an older copy of the object, of the table, and from the topic.
    assert record is not None
    await blobs.put(
        Write(object_keys.registry_key("acme"), _raw(record)), action="restore a backup"
    )
    for is_there in (False, True):
        late = Part(blobs)
        if is_there:
            late.rows[b"acme"] = old
        await late.start()
        assert (late.registry.tenants(), late.registry.holder("k")) == ([], None)
        await late.change(event(ChangeKind.LIMIT, limits=Limits()))
        assert (late.rows, late.registry.find("acme")) == ({}, None)
        assert await late.recovery.admitted("acme", old) is None
    await late.reconciler.look()
    assert await late.records.tenants() == set()
    late.rows[b"acme"] = old
    await late.change(event(ChangeKind.CREATE, at=NEXT_YEAR))
    row = late.rows[b"acme"]
    assert (row.createdAt, row.keys, row.purgedAt) == (NEXT_YEAR, [], LATER)
    assert late.registry.find("acme") is row
    assert await late.records.judge(row) is Verdict.STANDS


async def test_a_purge_elsewhere_is_heard_of() -> None:
    here, there = Part(), Part()
    there.blobs = here.blobs
    await here.made()
    await here.start()
    old = here.rows[b"acme"]
    assert await here.recovery.admitted("acme", old) is old, "known now, and not asked again"
    purge = TenantPurge(tenantId="acme", requestedAt=NOW, emptiedAt=LATER)
    await here.services.tombstones.put_purge(purge)
    assert await here.recovery.admitted("acme", None) is None
    assert await here.recovery.admitted("acme", old) is None


@pytest.mark.parametrize("said", [b"", b"{", b"[]"])
async def test_a_damaged_proof_of_a_purge_ends_nothing_and_removes_nothing(
    blobs: Blobs, said: bytes
) -> None:
    part = Part(blobs)
    await part.made()
    old, record = part.rows[b"acme"], await part.records.find("acme")
    await part.deleted()
    proof = Write(object_keys.purge_key("acme"), said)
    await blobs.put(proof, action="cut the power")
    assert record is not None
    await blobs.put(
        Write(object_keys.registry_key("acme"), _raw(record)), action="restore a backup"
    )
    # Of before the purge, as far as it says: refused, and kept.
    late = Part(blobs)
    late.rows[b"acme"] = old
    late.rows[b"other"] = tenant()
    late.rows[b"other"].tenantId = "other"
    await late.start()
    assert [row.tenantId for row in late.registry.tenants()] == ["other"]
    await late.reconciler.look()
    assert await late.records.find("acme") == record
    await late.change(event(ChangeKind.EXPIRE_KEY, keyId="k"))
    assert late.rows[b"acme"].keys[0].revokedAt == NOW
    assert late.registry.find("acme") is None
    # One that was made since says so.
    new = Part(blobs)
    await blobs.delete(object_keys.registry_key("acme"), action="begin anew")
    await new.change(event(ChangeKind.CREATE, at=NEXT_YEAR))
    assert new.registry.find("acme") is new.rows[b"acme"]
    await new.start()
    assert new.registry.find("acme") is not None


async def test_a_tenant_is_believed_whose_clock_was_behind() -> None:
    part = Part()
    purge = TenantPurge(tenantId="acme", requestedAt=NOW, emptiedAt=LATER)
    await part.services.tombstones.put_purge(purge)
    await part.change(event(ChangeKind.CREATE, at=NOW))
    assert part.registry.find("acme") is not None
    await part.start()
    assert part.registry.find("acme") is not None


@pytest.mark.parametrize("is_at_its_end", [False, True])
async def test_a_tenant_goes_whose_clock_was_ahead(is_at_its_end: bool) -> None:
    """Whoever made it wrote down a time that is later than that of its purge."""
    part = Part()
    await part.change(event(ChangeKind.CREATE, at=NEXT_YEAR))
    old = part.rows[b"acme"]
    purge = TenantPurge(
        tenantId="acme",
        requestedAt=NOW,
        emptiedAt=LATER if is_at_its_end else None,
        tenantCreatedAt=NEXT_YEAR,
    )
    await part.services.tombstones.put_purge(purge)
    part.records.look_again("acme")
    verdict = await part.records.judge(old)
    assert verdict is (Verdict.GONE if is_at_its_end else Verdict.GOES)
    # One that was made since, by a clock that is right, knows of the end.
    if is_at_its_end:
        await part.change(event(ChangeKind.CREATE, at=LATER))
        assert part.rows[b"acme"].createdAt == LATER
        assert await part.records.judge(part.rows[b"acme"]) is Verdict.STANDS


async def test_a_tenant_that_was_being_deleted_goes_on_when_kafka_is_lost(blobs: Blobs) -> None:
    before = Part(blobs)
    await before.made()
    active = await before.records.find("acme")
    await before.change(event(ChangeKind.DELETE))
    await before.services.tombstones.put_purge(TenantPurge(tenantId="acme", requestedAt=NOW))
    for kept in (await before.records.find("acme"), active):
        assert kept is not None
        await blobs.put(Write(object_keys.registry_key("acme"), _raw(kept)), action="keep it")
        part = Part(blobs)
        await part.start()
        (row,) = part.registry.tenants()
        assert row.state == "deleting"
        await part.reconciler.settle()
        assert part.rows[b"acme"].state == "deleting"
        assert [each.topic for each in part.sent] == [TENANT_CHANGES, DELETED]


async def test_rows_are_looked_at_again_when_storage_is_back() -> None:
    part = Part()
    await part.made()
    old = part.rows[b"acme"]
    await part.deleted()
    part = Part(part.blobs)
    part.rows[b"acme"] = old
    part.blobs.is_away = True  # type: ignore[attr-defined]
    await part.start()
    assert part.registry.find("acme") is not None
    await part.reconciler.settle()
    assert part.registry.find("acme") is not None, "nobody can tell yet"
    part.blobs.is_away = False  # type: ignore[attr-defined]
    await part.reconciler.settle()
    assert part.registry.find("acme") is None


async def test_marks_of_a_topic_that_was_lost_are_forgotten() -> None:
    part = Part()
    await part.made()
    for partition, offset in ((0, 5000), (1, 3)):
        data: dict[str, Any] = {"partition": partition, "counts": [count(offset)]}
        await part.change(event(ChangeKind.COUNT, **data))
    await part.start()
    part.recovery.note_ends(part.rows.values(), {0: 2, 1: 4})
    assert part.recovery.lost_marks == {"acme": {"0": 5000}}
    await part.reconciler.settle()
    row = part.rows[b"acme"]
    assert (row.counted, row.usage.images, part.recovery.lost_marks) == ({"1": 3}, 2, {})
    await part.change(event(ChangeKind.COUNT, partition=0, counts=[count(2)]))
    assert part.rows[b"acme"].usage.images == 3


async def test_who_exists_from_the_first_use_is_kept_too() -> None:
    part = Part(is_open=True)
    await part.change(event(ChangeKind.COUNT, partition=0, counts=[count(1)]))
    assert await part.records.tenants() == {"acme"}
    again = Part(part.blobs, is_open=True)
    await again.change(event(ChangeKind.COUNT, at=LATER, partition=0, counts=[count(1)]))
    assert again.rows[b"acme"].createdAt == NOW


def _raw(record: TenantRecord) -> bytes:
    return orjson.dumps(record.to_wire())
