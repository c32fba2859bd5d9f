"""The purge of a tenant: all of it goes, and nothing of who comes after it."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from agents import dead_letters, purging
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import PROGRESS, TENANT_CHANGES
from deeplens_streams.config import load_settings
from deeplens_streams.deletion import image as deletion
from deeplens_streams.deletion import tenant as tenant_purge
from deeplens_streams.errors import UndecodableImage
from deeplens_streams.pipeline import dead_letters as letters
from deeplens_streams.services import Services, build_services
from deeplens_streams.storage import image_objects, object_keys
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.storage.images import ObjectImages
from deeplens_streams.storage.listing.walk import MAX_AT_ONCE
from deeplens_streams.testing.vectors import MemoryVectors
from deeplens_streams.vectors import VectorPoint
from models.deletion import ImageDeleted, ImageDeletedData, TenantPurge
from models.events import ProcessingFailed, utc_now
from models.images import StoredImage
from models.status import ImageProgress
from models.tenants import ChangeKind, TenantChange
from tests.support.killed_systems import PICTURE, TENANT, Fuse, FusedBlobs, Killed, System
from tests.support.progress import event as progress_event
from tests.support.stage_messages import incoming
from tests.support.stored_images import image as made_image


class Outbox:
    """Keeps what the purger sends; `then` is called with each."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.then: Callable[[Message], Awaitable[None]] | None = None

    async def send(self, *messages: Message) -> None:
        for message in messages:
            self.sent.append(message)
            if self.then is not None:
                await self.then(message)

    @property
    def purged(self) -> int:
        return sum(
            isinstance(message.event, TenantChange) and message.event.data.kind == ChangeKind.PURGED
            for message in self.sent
        )


@pytest.fixture
def services() -> Services:
    return System(Fuse()).services


async def stored(services: Services) -> StoredImage:
    image = made_image(services.storage)
    image.checksumSha256 = 2 * uuid.uuid4().hex
    await services.storage.put_image(image, PICTURE, claim=services.claims.pending(image))
    return image


async def requested(services: Services) -> TenantPurge:
    purge = TenantPurge(tenantId=TENANT, requestedAt=utc_now())
    await services.tombstones.put_purge(purge)
    return purge


async def run(services: Services, outbox: Outbox) -> None:
    event = ImageDeleted(
        eventType=ImageDeleted.EVENT_TYPE,
        eventId="e",
        timestamp=utc_now(),
        tenantId=TENANT,
        correlationId="c",
        data=ImageDeletedData(),
    )
    assert await purging.process(event, services, outbox.send) == []


async def images(services: Services) -> list[str]:
    return [image_id async for image_id, _ in services.storage.survey(tenant=TENANT)]


async def index(services: Services, image: StoredImage) -> None:
    assert services.vectors is not None
    vector = np.ones(services.model.dimension, np.float32)
    point = VectorPoint(image.imageId, vector, {"uploadedAt": image.uploadedAt})
    await services.vectors.upsert([point], tenant=TENANT, model=services.model.name)


async def test_what_is_written_behind_the_first_look_goes_too(services: Services) -> None:
    """An upload and a stage were at work: picture, claim, thumbnail, vector and letter."""
    outbox, first = Outbox(), await stored(services)
    late: list[StoredImage] = []

    async def write(message: Message) -> None:
        if message.topic is PROGRESS and not late:
            late.append(await stored(services))
            thumbnail = first.thumbnailKey
            await services.storage.put_thumbnail(tenant=TENANT, key=thumbnail, data=b"late")
            await index(services, late[0])

    outbox.then = write
    await requested(services)
    await run(services, outbox)
    assert late
    assert await images(services) == []
    assert [each async for each in services.storage.walk_files(tenant=TENANT)] == []
    assert [each async for each in services.claims.walk(tenant=TENANT)] == []
    assert await services.storage.tenants() == []
    assert services.vectors is not None
    assert await services.vectors.models_of(tenant=TENANT) == []
    ended = {m.event.image_id for m in outbox.sent if isinstance(m.event, ImageProgress)}
    assert ended == {first.imageId, late[0].imageId}
    assert outbox.purged == 1
    assert outbox.sent[-1].topic is TENANT_CHANGES


async def test_a_purge_that_was_cut_off_at_its_end_removes_nothing_more(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died before it wrote down that all is done; the tenant was made again meanwhile."""
    outbox = Outbox()
    await stored(services)
    await requested(services)
    replace_purge = services.tombstones.replace_purge

    async def dies(purge: TenantPurge, *, known: TenantPurge) -> bool:
        if purge.completedAt is not None:
            raise KeyboardInterrupt
        return await replace_purge(purge, known=known)

    with monkeypatch.context() as patch:
        patch.setattr(services.tombstones, "replace_purge", dies)
        with pytest.raises(KeyboardInterrupt):
            await run(services, outbox)
    assert outbox.purged == 1
    new = await stored(services)
    await run(services, outbox)
    assert await images(services) == [new.imageId]
    assert outbox.purged == 2, "the first may not have been sent; the second changes nothing"
    purge = await services.tombstones.find_purge(tenant=TENANT)
    assert purge is not None
    assert purge.completedAt is not None
    await run(services, outbox)
    assert await images(services) == [new.imageId]
    assert outbox.purged == 2


@pytest.mark.parametrize("again", [False, True], ids=["made", "made-and-deleted"])
async def test_a_worker_that_was_slow_does_not_go_on_with_a_purge_that_is_over(
    services: Services, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Two events ask for the same; while one worker stands still, the other is done."""
    for _ in range(3):
        await stored(services)
    await requested(services)
    slow, quick = Outbox(), Outbox()
    new: list[StoredImage] = []
    purge_one = deletion.purge

    async def stands_still(tombstone: Any, *args: Any) -> None:
        await purge_one(tombstone, *args)
        if not new:
            monkeypatch.setattr(deletion, "purge", purge_one)
            await run(services, quick)
            new.append(await stored(services))
            if again:
                await requested(services)

    monkeypatch.setattr(deletion, "purge", stands_still)
    await run(services, slow)
    assert await images(services) == [new[0].imageId]
    assert (quick.purged, slow.purged) == (1, 0)
    assert [each async for each, _ in services.tombstones.survey(tenant=TENANT)] == []
    purge = await services.tombstones.find_purge(tenant=TENANT)
    assert purge is not None
    assert (purge.completedAt is None) is again


async def test_a_purge_has_few_keys_in_hand_however_many_there_are(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, most, in_hand = 60, 0, set[str]()
    walk, delete = FusedBlobs.walk, FusedBlobs.delete

    async def counted(self: FusedBlobs, path: str, *, action: str) -> AsyncGenerator[str]:
        nonlocal most
        async for key in walk(self, path, action=action):
            if action != "count purged images":
                in_hand.add(key)
            most = max(most, len(in_hand))
            yield key

    async def removed(self: FusedBlobs, key: str, *, action: str) -> None:
        await delete(self, key, action=action)
        in_hand.discard(key)

    for number in range(count):  # all of one minute
        image, work = await stored(services), progress_event()
        work.tenantId, work.data.imageId = TENANT, image.imageId
        letter = letters.dead_letter(f"step {number}", work, UndecodableImage(), 1, incoming(b""))
        await dead_letters.process(cast(ProcessingFailed, letter.event), services)
    await requested(services)
    monkeypatch.setattr(tenant_purge, "BATCH", 4)
    monkeypatch.setattr(FusedBlobs, "walk", counted)
    monkeypatch.setattr(FusedBlobs, "delete", removed)
    outbox = Outbox()
    await run(services, outbox)
    assert len([each for each in outbox.sent if each.topic is PROGRESS]) == count
    assert in_hand == set(), "nothing is left of what was listed"
    assert MAX_AT_ONCE <= most <= MAX_AT_ONCE + tenant_purge.BATCH


async def images_deleted(services: Services) -> int:
    purge = await services.tombstones.find_purge(tenant=TENANT)
    assert purge is not None
    assert purge.completedAt is not None
    return purge.images


async def nothing_is_left(services: Services) -> None:
    assert await services.storage.tenants() == []
    left = [
        key async for key in services.tombstones._blobs.walk(object_keys.PURGING, action="look")
    ]
    assert left == []


@pytest.mark.parametrize("workers", [1, 2], ids=["one", "two"])
async def test_its_proof_counts_each_image_once_wherever_it_is_killed(
    monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """With two at once, one of them is killed, and the other may be anywhere."""
    count = 3
    monkeypatch.setattr(tenant_purge, "BATCH", 2)

    async def purged(at: int | None) -> int:
        fuse = Fuse()
        services = System(fuse).services
        for _ in range(count):
            await stored(services)
        # Another's deletion, before: it is not the purge's.
        await deletion.bury(await stored(services), services)
        await requested(services)
        fuse.writes, fuse.at = 0, at
        # A kill ends one of them and what it was doing; then its event comes again.
        work = [run(services, Outbox()) for _ in range(workers)]
        ended = await asyncio.gather(*work, return_exceptions=True)
        assert all(each is None or isinstance(each, Killed) for each in ended), ended
        fuse.at = None
        await run(services, Outbox())
        assert await images_deleted(services) == count, f"killed behind write {at}"
        if workers == 1 or at is None:
            await nothing_is_left(services)
        return fuse.writes

    writes = await purged(None)
    assert writes > 10 * count
    for at in range(1, writes + 1):
        await purged(at)


async def test_images_that_come_late_or_cannot_be_read_are_counted_too(
    services: Services,
) -> None:
    outbox, first, damaged = Outbox(), await stored(services), await stored(services)
    write = Write(image_objects.metadata_key_of(damaged), b"{")
    await cast(ObjectImages, services.storage)._blobs.put(write, action="damage")
    late: list[StoredImage] = []

    async def upload(message: Message) -> None:
        if message.topic is PROGRESS and len(late) < 2:
            late.append(await stored(services))

    outbox.then = upload
    await requested(services)
    await run(services, outbox)
    assert len({first.imageId, damaged.imageId, *(each.imageId for each in late)}) == 4
    assert await images_deleted(services) == 4
    await nothing_is_left(services)
    # Another purge of the same name counts its own.
    await stored(services)
    await requested(services)
    await run(services, Outbox())
    assert await images_deleted(services) == 1


async def test_what_an_earlier_version_had_removed_counts_too() -> None:
    """It wrote down how many, and left no mark of each."""

    async def purged(at: int | None) -> int:
        fuse = Fuse()
        services = System(fuse).services
        for _ in range(2):
            await stored(services)
        begun = await requested(services)
        begun.images = 5
        await services.tombstones.put_purge(begun)
        fuse.writes, fuse.at = 0, at
        with suppress(Killed):
            await run(services, Outbox())
        fuse.at = None
        await run(services, Outbox())
        assert await images_deleted(services) == 7, f"killed behind write {at}"
        return fuse.writes

    for at in range(1, await purged(None) + 1):
        await purged(at)


async def test_what_cannot_be_removed_does_not_hold_the_purge_for_ever(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(**_object: Any) -> None: ...

    await stored(services)
    await requested(services)
    monkeypatch.setattr(services.storage, "delete_object", nothing)
    outbox = Outbox()
    await run(services, outbox)
    assert outbox.purged == 1


async def test_a_letter_that_comes_behind_the_purge_is_not_kept(services: Services) -> None:
    image, work = await stored(services), progress_event()
    work.tenantId, work.data.imageId = TENANT, image.imageId
    letter = letters.dead_letter("index", work, UndecodableImage(), 1, incoming(b"")).event
    assert isinstance(letter, ProcessingFailed)

    async def kept() -> int:
        await dead_letters.process(letter, services)
        return len([each async for each in services.letters.walk(tenant=TENANT)])

    assert await kept() == 1
    await requested(services)
    await run(services, Outbox())
    assert await kept() == 0


async def test_an_empty_folder_is_no_tenant(tmp_path: Path) -> None:
    """A stage that was at work behind the purge takes back what it wrote, but no folder."""
    services = build_services(load_settings(data_dir=tmp_path, weights="untrained"))
    image = await stored(services)
    assert await services.storage.tenants() == [TENANT]
    await requested(services)
    await run(replace(services, vectors=MemoryVectors()), Outbox())
    key = image.thumbnailKey
    await services.storage.put_thumbnail(tenant=TENANT, key=key, data=b"late")
    await services.storage.delete_object(tenant=TENANT, key=key)
    assert await services.storage.tenants() == []
    await services.close()


async def test_what_cannot_be_read_goes_by_its_key(tmp_path: Path) -> None:
    """Damaged objects, what a killed process had half written, and what nobody here wrote."""
    built = build_services(load_settings(data_dir=tmp_path, weights="untrained"))
    services = replace(built, vectors=MemoryVectors())
    damaged, deleted = await stored(services), await stored(services)
    ms = object_keys.epoch_ms(deleted.uploadedAt)
    await deletion.bury(deleted, services)
    work = progress_event()
    work.tenantId, work.data.imageId = TENANT, damaged.imageId
    letter = letters.dead_letter("index", work, UndecodableImage(), 1, incoming(b""))
    await dead_letters.process(cast(ProcessingFailed, letter.event), services)
    folder = tmp_path / "images"
    half = folder / f"{damaged.originalKey}#4711"
    half.write_bytes(PICTURE[:100])
    (folder / TENANT / "original" / "notes.txt").write_bytes(b"by hand")
    small = [
        image_objects.metadata_key_of(damaged),
        object_keys.tombstone_key(tenant=TENANT, image_id=deleted.imageId, ms=ms),
        object_keys.claim_key(tenant=TENANT, checksum=damaged.checksumSha256),
        *(path.relative_to(folder).as_posix() for path in folder.glob(f"{TENANT}/failed/*/*/*")),
    ]
    assert len(small) == 4
    for key in small:
        (folder / key).write_bytes(b"{")
    await requested(services)
    outbox = Outbox()
    await run(services, outbox)
    purge = await services.tombstones.find_purge(tenant=TENANT)
    assert purge is not None
    assert purge.completedAt is not None
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert [path.relative_to(folder).as_posix() for path in left] == [object_keys.purge_key(TENANT)]
    ended = {m.event.image_id for m in outbox.sent if isinstance(m.event, ImageProgress)}
    assert ended == {damaged.imageId, deleted.imageId}
    await services.close()


async def test_another_tenant_s_pointer_stays(services: Services) -> None:
    theirs = made_image(services.storage, tenant="another")
    await services.storage.put_image(theirs, PICTURE)
    forged = theirs.originalKey.replace("another/", f"{TENANT}/", 1)
    await services.storage.remove_listed(tenant=TENANT, key=forged)
    assert await services.storage.find(theirs.imageId) is not None


async def test_a_note_whose_answer_got_lost_is_no_other_worker_s(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may be asked again for what it has done, and then refuses it."""
    swap, lost = FusedBlobs.swap, 0

    async def loses_its_answer(self: FusedBlobs, write: Write, *, old: bytes, action: str) -> bool:
        nonlocal lost
        done = await swap(self, write, old=old, action=action)
        lost += action == "store a purge"
        return done and action != "store a purge"

    monkeypatch.setattr(FusedBlobs, "swap", loses_its_answer)
    for _ in range(3):
        await stored(services)
    await requested(services)
    outbox = Outbox()
    await run(services, outbox)
    assert lost == 2
    assert await images_deleted(services) == 3
    assert outbox.purged == 1
    await nothing_is_left(services)
