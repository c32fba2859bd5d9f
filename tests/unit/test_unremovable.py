"""What storage refuses to have removed holds up nothing behind it, and is named."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from obstore.exceptions import PermissionDeniedError

from deeplens_streams.broker.topics import Message
from deeplens_streams.config import load_settings
from deeplens_streams.deletion import image as deletion
from deeplens_streams.deletion import unremovable
from deeplens_streams.deletion.ageing import Ageing, Timings
from deeplens_streams.deletion.resume import PendingDeletions
from deeplens_streams.deletion.tenant import purge_tenant
from deeplens_streams.deletion.trash import EmptyingTrash
from deeplens_streams.errors import StorageUnavailable
from deeplens_streams.metrics import UNREMOVABLE
from deeplens_streams.services import Services
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.errors import storage_faults
from deeplens_streams.storage.blobs.store import Blobs
from deeplens_streams.storage.trash import Reason
from models.deletion import TenantPurge, Tombstone
from models.events import utc_now, wire_time
from models.images import StoredImage
from models.trash import TrashKind
from tests.support.killed_systems import PICTURE, TENANT, Fuse, FusedBlobs, System
from tests.support.stored_images import image as made_image

NOW = datetime.now(UTC)
AGO = timedelta(days=91)


class Locks:
    """Objects that nobody may remove, as an object lock or a folder's permissions have it."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.is_away = False

    def check(self, key: str) -> None:
        if self.is_away:
            raise StorageUnavailable
        if key in self.keys:
            raise PermissionDeniedError(f"{key}: AccessDenied, the object is locked")


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> Locks:
    known, delete = Locks(), FusedBlobs.delete

    async def checked(self: FusedBlobs, key: str, *, action: str) -> None:
        with storage_faults(action):
            known.check(key)
        await delete(self, key, action=action)

    monkeypatch.setattr(FusedBlobs, "delete", checked)
    return known


@pytest.fixture
async def services(locks: Locks) -> Services:
    system = System(Fuse())
    found = replace(system.services, settings=load_settings(weights="untrained"))

    async def ping() -> None:
        if locks.is_away:
            raise StorageUnavailable

    found.breakers["storage"].ping = ping
    return found


async def sent(*_messages: Message) -> None:
    """Kafka takes it."""


async def stored(services: Services, tenant: str = TENANT) -> StoredImage:
    image = made_image(services.storage, tenant=tenant, at=NOW - 2 * AGO)
    await services.storage.put_image(image, PICTURE)
    return image


async def purged(services: Services, tenant: str = TENANT) -> Tombstone:
    """Return the tombstone of an image of which nothing is left, long since."""
    tombstone = await deletion.bury(await stored(services, tenant), services)
    await deletion.purge(tombstone, services)
    tombstone.completedAt = wire_time(NOW - AGO)
    await services.tombstones.put(tombstone)
    return tombstone


async def tombstones_of(services: Services, tenant: str) -> set[str]:
    return {image_id async for image_id, _ in services.tombstones.survey(tenant=tenant)}


def named(lines: list[Any]) -> list[str]:
    return [line["key"] for line in lines if "cannot be removed" in line["event"]]


@pytest.mark.parametrize("part", ["pointer", "tombstone"])
async def test_ageing_goes_on(services: Services, locks: Locks, part: str) -> None:
    first, _ = [await purged(services) for _ in range(2)]
    await purged(services, "zebra")
    locks.keys.add(
        object_keys.pointer_key(first.imageId)
        if part == "pointer"
        else object_keys.tombstone_key(
            tenant=TENANT, image_id=first.imageId, ms=object_keys.epoch_ms(first.uploadedAt)
        )
    )
    ageing = Ageing(services, sent, lambda: True, Timings(first=0.0, rest=0.0))
    with structlog.testing.capture_logs() as lines:
        assert [await ageing.look() for _ in range(2)] == [2, 0]
    assert named(lines) == [first.imageId]
    assert await tombstones_of(services, TENANT) == {first.imageId}
    assert await tombstones_of(services, "zebra") == set()
    assert UNREMOVABLE.labels("ageing")._value.get() == 1
    locks.keys.clear()
    assert await ageing.look() == 1
    assert await tombstones_of(services, TENANT) == set()
    assert UNREMOVABLE.labels("ageing")._value.get() == 0


async def test_a_tombstone_that_cannot_be_read_holds_up_no_other(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = [await purged(services) for _ in range(2)]
    key = object_keys.tombstone_key(
        tenant=TENANT, image_id=first.imageId, ms=object_keys.epoch_ms(first.uploadedAt)
    )
    get = Blobs.get

    async def refused(self: Blobs, asked: str, *, action: str) -> bytes | None:
        if asked == key:
            with storage_faults(action):
                raise PermissionDeniedError("AccessDenied")
        return await get(self, asked, action=action)

    monkeypatch.setattr(Blobs, "get", refused)
    ageing = Ageing(services, sent, lambda: True, Timings(first=0.0, rest=0.0))
    with structlog.testing.capture_logs() as lines:
        assert await ageing.look() == 1
    assert named(lines) == [key]


async def thrown(services: Services) -> str:
    """Put something in the trash, and return the key of its manifest."""
    image = await stored(services)
    await services.trash.move(
        image.originalKey,
        kind=TrashKind.ORIGINAL,
        tenant=TENANT,
        image_id=image.imageId,
        why=Reason("a test", "audit-1"),
    )
    entries = (await services.trash.page(limit=99)).entries
    (key,) = [each.manifest_key for each in entries if each.manifest.imageId == image.imageId]
    return key


@pytest.mark.parametrize("suffix", [".json", ".bin"])
async def test_the_trash_is_emptied_but_for_it(
    services: Services, locks: Locks, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    keys = [(await thrown(services)).removesuffix(".json") + suffix for _ in range(3)]
    locks.keys.add(min(keys))
    monkeypatch.setattr("deeplens_streams.deletion.trash.before_ms", lambda _days: 2**43)
    emptying = EmptyingTrash(services)
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            await emptying.empty()
    assert named(lines) == [min(keys)]
    left = [key async for key in services.inventory.keys(object_keys.TRASH)]
    assert min(keys) in left
    assert {key.rpartition(".")[0] for key in left} == {min(keys).rpartition(".")[0]}
    assert UNREMOVABLE.labels("trash")._value.get() >= 1
    locks.keys.clear()
    await emptying.empty()
    assert [key async for key in services.inventory.keys(object_keys.TRASH)] == []
    assert UNREMOVABLE.labels("trash")._value.get() == 0


@pytest.mark.parametrize("part", ["note", "metadata"])
async def test_deletions_that_were_begun_are_finished_but_for_it(
    services: Services, locks: Locks, part: str
) -> None:
    told = list[str]()

    async def publish(*messages: Message) -> None:
        told.extend(message.event.eventType for message in messages)

    images = sorted([await stored(services) for _ in range(3)], key=lambda each: each.imageId)
    for image in images:
        await services.tombstones.begin(deletion._tombstone(image))
    first = images[0]
    locks.keys.add(
        object_keys.deletion_key(first.imageId)
        if part == "note"
        else object_keys.metadata_key(
            tenant=TENANT, image_id=first.imageId, ms=object_keys.epoch_ms(first.uploadedAt)
        )
    )
    pending = PendingDeletions(services, publish)
    with structlog.testing.capture_logs() as lines:
        await pending._finish()
        said = len(told)
        await pending._finish()
    assert named(lines) == [first.imageId]
    assert len(told) == said, "what was refused a moment ago is let be for a while"
    assert [each async for each, _ in services.tombstones.begun()] == [first.imageId]
    assert UNREMOVABLE.labels("deletions")._value.get() == 1
    for image in images[1:]:
        assert await services.storage.find(image.imageId) is None


async def test_a_storage_that_is_away_is_nobody_s_fault(services: Services, locks: Locks) -> None:
    await purged(services)
    await thrown(services)
    locks.is_away = True
    ageing = Ageing(services, sent, lambda: True, Timings(first=0.0, rest=0.0))
    with structlog.testing.capture_logs() as lines:
        with pytest.raises(StorageUnavailable):
            await ageing.look()
        with pytest.raises(StorageUnavailable):
            await services.trash.empty(before_ms=2**43)
        await EmptyingTrash(services).empty()
    assert named(lines) == []


async def test_the_rest_of_an_image_goes(services: Services, locks: Locks) -> None:
    image = await stored(services)
    await services.storage.put_thumbnail(tenant=TENANT, key=image.thumbnailKey, data=b"small")
    locks.keys.add(image.thumbnailKey)
    tombstone = await deletion.bury(image, services)
    with pytest.raises(StorageUnavailable):
        await deletion.purge(tombstone, services)
    assert await services.storage.size(tenant=TENANT, key=image.originalKey) is None
    assert [step.value for step in deletion.left(tombstone)] == ["thumbnail", "state"]
    assert tombstone.completedAt is None
    locks.keys.clear()
    await deletion.purge(tombstone, services)
    assert deletion.left(tombstone) == []


async def test_the_rest_of_a_tenant_goes(services: Services, locks: Locks) -> None:
    images = [await stored(services) for _ in range(3)]
    locks.keys.add(min(each.originalKey for each in images))
    purge = TenantPurge(tenantId=TENANT, requestedAt=utc_now())
    await services.tombstones.put_purge(purge)
    with pytest.raises(StorageUnavailable):
        await purge_tenant(TENANT, services, sent)
    left = [key async for key in services.storage.walk_keys(tenant=TENANT)]
    assert {object_keys.read_image_id(key) for key in left} == {
        each.imageId for each in images if each.originalKey in locks.keys
    }
    found = await services.tombstones.find_purge(tenant=TENANT)
    assert found is not None
    assert found.emptiedAt is None
    locks.keys.clear()
    await purge_tenant(TENANT, services, sent)
    found = await services.tombstones.find_purge(tenant=TENANT)
    assert found is not None
    assert (found.completedAt is not None, found.images) == (True, 3)


async def test_so_many_are_named_and_no_more(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unremovable, "MOST", 2)
    known = unremovable.Unremovable(services.breakers, "ageing")

    async def refuse(keys: str) -> list[str]:
        with structlog.testing.capture_logs() as lines:
            for key in keys:
                error = StorageUnavailable()
                error.ambiguous = True
                await known.refused(key, error)
        return named(lines)

    assert await refuse("aabc") == ["a", "b"]
    assert (known.count, known.first[:2]) == (4, "a:")
    monkeypatch.setattr(unremovable, "REST_S", 0.0)  # an hour later
    assert await refuse("cad") == ["c", "a", "d"]
