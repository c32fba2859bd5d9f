"""The registry of tenants: what is read again is not believed before all of it is read."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from obstore.store import MemoryStore

from agents.tenants import announced
from deeplens_streams.broker import codec, groupless_consumer
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import TOPICS
from deeplens_streams.config import load_settings
from deeplens_streams.errors import TenantDeleting, TenantNotFound
from deeplens_streams.storage import Blobs
from deeplens_streams.storage.tenant_records import TenantRecords
from deeplens_streams.storage.tombstones import Tombstones
from deeplens_streams.tenancy import registry as registry_module
from deeplens_streams.tenancy.recovery import TenantRecovery
from deeplens_streams.tenancy.registry import Registry
from deeplens_streams.tenancy.registry_reader import RegistryReader
from models.tenants import ApiKey, Tenant, TenantState
from tests.support.tenant_changes import NOW, tenant
from tests.support.web_server import until


async def publish(*_messages: Message) -> None: ...


class Log:
    """The topic of tenants: each record is handed out when the test says so."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self.released = 0
        self.fault: Exception | None = None

    def write(self, row: Tenant) -> None:
        self.records.append((row.tenantId.encode(), codec.encode(announced(row))))

    def consumer(self, **_options: Any) -> "Consumer":
        return Consumer(self)


class Consumer:
    """What is used of aiokafka's."""

    def __init__(self, log: Log) -> None:
        self._log, self._position = log, 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, _partitions: Any) -> None: ...

    async def seek_to_beginning(self) -> None:
        self._position = 0

    async def end_offsets(self, partitions: Any) -> dict[Any, int]:
        return dict.fromkeys(partitions, len(self._log.records))

    async def position(self, _partition: Any) -> int:
        return self._position

    async def getmany(self, **_options: Any) -> dict[Any, Any]:
        await asyncio.sleep(0)
        if self._log.fault is not None:
            fault, self._log.fault = self._log.fault, None
            raise fault
        if self._position >= self._log.released:
            return {}
        key, value = self._log.records[self._position]
        self._position += 1
        return {0: [SimpleNamespace(key=key, value=value)]}


def recovery() -> TenantRecovery:
    """Return what a storage says that keeps nothing."""
    blobs = Blobs(MemoryStore())
    return TenantRecovery(TenantRecords(blobs, Tombstones(blobs)))


def revoked() -> Tenant:
    row = with_key()
    row.keys[0].revokedAt = NOW
    return row


def with_key() -> Tenant:
    row = tenant()
    row.keys = [ApiKey(keyId="k", sha256="0" * 64, scopes=["read"], createdAt=NOW)]
    return row


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """Return the topic that every reader reads."""
    made = Log()
    monkeypatch.setattr(groupless_consumer, "AIOKafkaConsumer", made.consumer)
    return made


async def test_old_rows_are_not_believed_while_all_are_read_again(log: Log) -> None:
    registry = Registry(publish)
    seen: list[str | None] = []
    registry.on_change(lambda row: seen.append(row.keys[0].revokedAt))
    log.write(with_key())
    log.write(revoked())
    log.records.append((b"gone", None))

    def key() -> str | None:
        found = registry.holder("k")
        return found[1].revokedAt if found else "none"

    settings = load_settings(weights="untrained")
    reader = RegistryReader(settings, registry, recovery(), retry_s=0.0)
    log.released = 1
    starting = asyncio.create_task(reader.start())
    try:
        for _ in range(50):
            await asyncio.sleep(0)
        assert not registry.is_whole
        assert key() == "none"
        assert not starting.done(), "what starts behind it would refuse who asks"
        log.released = 3
        await starting
        assert (key(), registry.has("acme", NOW)) == (NOW, True)

        log.released, log.fault = 0, KafkaError()
        await until(lambda: not registry.has("acme", NOW))
        log.released = 1  # the key works, as it once did
        for _ in range(10):
            await asyncio.sleep(0)
        assert (key(), registry.is_whole) == (NOW, True)
        log.released = 3
        await until(lambda: registry.has("acme", NOW))
        assert key() == NOW
    finally:
        await reader.stop()
    assert set(seen) == {NOW}


async def test_a_worker_starts_also_where_the_tenants_cannot_be_read(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(publish)
    monkeypatch.setattr(registry_module, "PATIENCE_S", 0.05)
    log.write(with_key())
    async with RegistryReader(load_settings(weights="untrained"), registry, recovery()):
        assert not registry.is_whole
        log.released = 1
        await until(lambda: registry.is_whole)


async def test_a_tenant_that_went_meanwhile_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(publish)
    registry.replace({"acme": with_key()})
    registry.replace({})
    assert (registry.find("acme"), registry.holder("k")) == (None, None)


def made(registry: Registry, state: TenantState = TenantState.ACTIVE, at: str = NOW) -> Tenant:
    row = tenant()
    row.state, row.createdAt = state.value, at
    registry.take("acme", row)
    return row


def test_nothing_is_stored_for_a_tenant_that_goes_or_went() -> None:
    registry = Registry(publish)
    assert registry.require("acme") is None, "keys are off: it begins to exist"
    assert registry.require("acme", before=None) is None
    before = made(registry)
    assert registry.require("acme", before=before) is before
    made(registry, TenantState.DELETING)
    with pytest.raises(TenantDeleting):
        registry.require("acme")
    registry.take("acme", None)
    with pytest.raises(TenantDeleting):
        registry.require("acme", before=before)
    made(registry, at="2026-02-01T00:00:00.000Z")
    with pytest.raises(TenantDeleting):
        registry.require("acme", before=before)
    with pytest.raises(TenantNotFound):
        Registry(publish, is_open=False).require("acme")


def test_a_tenant_is_there_if_all_is_read_and_it_is_not_one_of_before_a_purge() -> None:
    registry, later = Registry(publish), "2026-02-01T00:00:00.000Z"
    row = made(registry)
    assert not registry.has("acme", NOW), "not all is read"
    registry.replace({"acme": row})
    assert registry.has("acme", NOW)
    assert not registry.has("other", NOW)
    assert not registry.has("acme", None)
    row.purgedAt = NOW
    assert (registry.has("acme", NOW), registry.has("acme", later)) == (False, True)
    row.state = TenantState.DELETING.value
    assert not registry.has("acme", later)


def test_a_compacted_topic_is_compacted_on_any_kafka() -> None:
    settings = load_settings(weights="untrained")
    configs = {topic.base: topic.config(settings) for topic in TOPICS if topic.retention is None}
    assert set(configs) == {"deeplens.images.status", "deeplens.tenants"}
    for config in configs.values():
        assert int(config["segment.ms"]) <= 3_600_000
        assert int(config["segment.bytes"]) <= 64 * 2**20
    assert configs["deeplens.tenants"]["min.cleanable.dirty.ratio"] == "0.1"
