"""Backup and restore between storages of every kind: nothing is lost, and nothing comes back."""

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from obstore.store import MemoryStore

from deeplens_streams.backup import manifest
from deeplens_streams.backup.errors import BackupDamaged, BackupRefused
from deeplens_streams.config import Settings
from deeplens_streams.storage import Blobs, blobs_at
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.storage.image_objects import metadata_key_of, metadata_of
from deeplens_streams.storage.object_keys import pointer_key, tombstone_folder
from models.deletion import TenantPurge
from models.events import utc_now
from models.images import StoredImage
from tests.support.backups import (
    TENANTS,
    Killed,
    Mortal,
    Watched,
    World,
    checked,
    contents,
    parsed,
    populated,
    restored,
    saved,
    shown,
)
from tests.support.stored_images import NOON

RUNNING = ".backup/running.json"


def memory() -> Blobs:
    return Blobs(MemoryStore())


@pytest.fixture(
    params=[
        "memory to memory",
        "local to local",
        pytest.param("local to s3", marks=pytest.mark.s3),
        pytest.param("s3 to local", marks=pytest.mark.s3),
    ]
)
def sides(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Blobs, Blobs, Blobs]:
    """A storage, a place for its backup, and an empty storage like the first."""

    def side(kind: str, name: str) -> Blobs:
        if kind == "memory":
            return memory()
        if kind == "local":
            return blobs_at((tmp_path / f"René, {name}").as_uri(), Settings())
        server = request.getfixturevalue("s3_server")
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        return blobs_at(f"{server.bucket(f'b{uuid.uuid4()}')}/of/{name}", Settings())

    source, _, target = request.param.partition(" to ")
    return side(source, "here"), side(target, "there"), side(source, "again")


async def gone(blobs: Blobs, key: str) -> None:
    await blobs.delete(key, action="test")


async def get(blobs: Blobs, key: str) -> bytes:
    raw = await blobs.get(key, action="test")
    assert raw is not None, key
    return raw


async def put(blobs: Blobs, key: str, data: bytes) -> None:
    await blobs.put(Write(key, data), action="test")


# There and back ----------------------------------------------------------------------------


async def test_everything_there_and_back(sides: tuple[Blobs, Blobs, Blobs]) -> None:
    here, there, again = sides
    world, images = await populated(here)
    counts, found = await saved(here, there)
    assert not found
    before = await contents(here)
    assert await contents(there) == before
    assert counts.copied == len(before)
    assert await shown(there) >= {image.imageId for image in images}  # a storage as any other
    whole, found = await checked(there)
    assert not found
    assert (whole.objects, whole.bytes) == (len(before), sum(map(len, before.values())))

    # The second run finds what is new, and reads nothing else.
    new = await world.upload("globex")
    await world.delete(images[0])
    counts, found = await saved(here, there)
    assert not found
    # Of the new one: bytes, pointer, metadata, claim; of the deleted one: its tombstone.
    assert counts.copied == 5
    assert counts.removed == 5  # bytes, metadata, claim, letter and its pointer
    before = await contents(here)
    assert await contents(there) == before
    assert (await checked(there))[1] == []

    _, found = await restored(there, again)
    assert not found
    assert await contents(again) == before
    assert await shown(again) == await shown(here) >= {new.imageId}
    assert images[0].imageId not in await shown(again)


async def test_thumbnails_and_trash_where_they_are_wanted() -> None:
    here, there = memory(), memory()
    world, images = await populated(here)
    await world.write(".trash/1/original", b"what was set aside")
    await saved(here, there, thumbnails=True, trash=True)
    assert await get(there, ".trash/1/original") == b"what was set aside"
    assert await get(there, images[0].thumbnailKey) == b"small"
    # A run without them leaves thumbnails; trash is there no longer than at the source.
    counts, found = await saved(here, there)
    assert (counts.removed, found) == (1, [])
    assert await there.get(".trash/1/original", action="test") is None
    assert await get(there, images[0].thumbnailKey) == b"small"
    await world.delete(images[0])
    await saved(here, there, thumbnails=True)
    assert await there.get(images[0].thumbnailKey, action="test") is None


async def test_a_registry_beside_no_image_at_all() -> None:
    here, there, again = memory(), memory(), memory()
    await saved(here, there)
    await World(here).write(".registry/tenants/acme.json", b"{}")
    await saved(here, there)
    await restored(there, again)
    assert set(await contents(again)) == {".registry/tenants/acme.json"}


# Killed ------------------------------------------------------------------------------------


async def test_a_backup_killed_behind_each_write_goes_on() -> None:
    here = memory()
    await populated(here)
    before, writes = await contents(here), 0
    for at in range(1, 1000):
        there = memory()
        mortal = Mortal(there, at)
        try:
            await saved(here, cast(Any, mortal))
        except Killed:
            writes += 1
        else:
            break
        await shown(there)  # each with its bytes
        if await there.get(manifest.MANIFEST_KEY, action="test") is None:
            with pytest.raises(BackupRefused):
                await checked(there)
            with pytest.raises(BackupRefused):
                await restored(there, memory())
            again = memory()
            await restored(there, again, unfinished=True)
            assert await shown(again) == await shown(there)
        await gone(there, RUNNING)  # its process is dead
        _, found = await saved(here, there)
        assert not found
        assert await contents(there) == before
        assert (await checked(there))[1] == []
    assert writes > len(before)


async def test_a_second_run_killed_behind_each_write() -> None:
    for at in range(1, 1000):
        here, there, again = memory(), memory(), memory()
        world, images = await populated(here)
        await saved(here, there)
        await world.delete(images[0])
        new = await world.upload()
        try:
            await saved(here, cast(Any, Mortal(there, at)))
        except Killed:
            pass
        else:
            break
        # The backup of before is there, with all that the run has noted.
        _, found = await restored(there, again)
        images_of_both = {each.imageId for each in images[1:]}
        assert images_of_both <= await shown(again), (at, found)
        await gone(there, RUNNING)
        _, found = await saved(here, there)
        assert not found
        assert await contents(there) == await contents(here)
        assert new.imageId in await shown(there)
    assert at > 10


async def test_a_restore_killed_behind_each_write_goes_on() -> None:
    here, there = memory(), memory()
    await populated(here)
    await saved(here, there)
    for at in range(1, 1000):
        again = memory()
        try:
            await restored(there, cast(Any, Mortal(again, at)))
        except Killed:
            await shown(again)
            if await again.get(".restore/running.json", action="test") is not None:
                _, found = await restored(there, again)
                assert not found
            assert await contents(again) == await contents(here)
        else:
            break
    assert at > 20


# In the middle of it -----------------------------------------------------------------------


@pytest.mark.parametrize("purged", [False, True])
async def test_uploads_and_deletions_in_the_middle(purged: bool) -> None:
    for at in range(2 if purged else 1, 1000, 3):
        here, there, again = memory(), memory(), memory()
        world, images = await populated(here)
        new: list[StoredImage] = []

        async def meanwhile(
            world: World = world, images: list[StoredImage] = images, new: list[StoredImage] = new
        ) -> None:
            new.append(await world.upload())
            for image in (images[0], images[-1]):
                await world.begin_deletion(image)
                if purged:
                    await world.purge(image)

        watched = Watched(here, at, meanwhile)
        _, found = await saved(cast(Any, watched), there)
        if watched.reads < at:
            break
        assert not found
        assert (await checked(there))[1] == []
        await restored(there, again)
        assert {image.imageId for image in images[1:-1]} <= await shown(again)
        # The next one has all of it, and nothing that was deleted.
        _, found = await saved(here, there)
        assert not found
        again = memory()
        await restored(there, again)
        assert await shown(again) == await shown(here) >= {new[0].imageId}
        assert await there.get(images[0].originalKey, action="test") is None
    assert at > 30


# What the source lost ----------------------------------------------------------------------


async def test_what_was_lost_stays_in_the_backup_and_is_named() -> None:
    here, there, again = memory(), memory(), memory()
    world, images = await populated(here)
    await saved(here, there)
    before = await contents(there)
    letter = await world.fail(images[2])
    await saved(here, there)
    letters = [k async for k in here.walk(f"{images[2].tenantId}/failed", action="test")]
    for key in (metadata_key_of(images[0]), images[1].originalKey, *letters):
        await gone(here, key)
    counts, found = await saved(here, there)
    assert {(each.key, each.fault) for each in found} == {
        (metadata_key_of(images[0]), "lost"),
        (images[1].originalKey, "lost"),
        *((key, "lost") for key in letters),
    }
    assert counts.removed == 0
    assert (await contents(there)).items() >= before.items()
    # And comes back by it, beside what goes on.
    new = await world.upload()
    _, found = await restored(there, here, into_existing=True)
    assert not found
    assert await shown(here) >= {images[0].imageId, images[1].imageId, new.imageId}
    assert await world.letters.find(letter) is not None
    assert (await saved(here, there))[1] == []
    await restored(there, again)
    assert await shown(again) == await shown(here)


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b'{"imageId":'], ids=["empty", "zeros", "cut"])
async def test_a_damaged_object_replaces_no_good_one(data: bytes) -> None:
    here, there = memory(), memory()
    _, images = await populated(here)
    await saved(here, there)
    before = await contents(there)
    keys = [metadata_key_of(images[0]), images[1].originalKey, pointer_key(images[2].imageId)]
    keys += [k async for k in here.walk(tombstone_folder(TENANTS[0]), action="test")]
    keys += [".registry/tenants/acme-corp.json"]
    for key in keys:
        await put(here, key, data)
    _, found = await saved(here, there)
    named = {each.key for each in found if each.fault == "damaged"}
    # The pointer needs no copy of the source's: it is made from the metadata object.
    assert named == set(keys) - {pointer_key(images[2].imageId)}
    assert await contents(there) == before
    # Brought back over what is damaged alone.
    _, found = await restored(there, here, into_existing=True)
    assert not found
    assert {k: v for k, v in (await contents(here)).items() if k in keys} == {
        k: v for k, v in before.items() if k in keys
    }


async def test_what_is_damaged_at_the_first_run_is_copied_and_mended_later() -> None:
    here, there = memory(), memory()
    _, images = await populated(here)
    good = await get(here, images[0].originalKey)
    await put(here, images[0].originalKey, good[:100])
    for _ in range(2):
        _, found = await saved(here, there)
        assert [(each.key, each.fault) for each in found] == [(images[0].originalKey, "damaged")]
        assert "100 bytes" in found[0].detail
    assert await get(there, images[0].originalKey) == good[:100]
    await put(here, images[0].originalKey, good)
    assert (await saved(here, there))[1] == []
    assert await get(there, images[0].originalKey) == good


async def test_an_image_without_bytes_is_kept_and_named() -> None:
    here, there, again = memory(), memory(), memory()
    _, images = await populated(here)
    await gone(here, images[0].originalKey)
    _, found = await saved(here, there)
    assert [(each.key, each.fault) for each in found] == [
        (images[0].originalKey, "original_missing")
    ]
    _, found = await restored(there, again)
    assert [(each.key, each.fault) for each in found] == [(images[0].originalKey, "missing")]
    assert await get(again, metadata_key_of(images[0]))


async def test_bytes_without_a_metadata_object_are_copied() -> None:
    here, there, again = memory(), memory(), memory()
    _, images = await populated(here)
    await gone(here, metadata_key_of(images[0]))
    await saved(here, there)
    await restored(there, again)
    assert await get(again, images[0].originalKey)


async def test_a_lost_pointer_is_made_anew() -> None:
    here, there, again = memory(), memory(), memory()
    _, images = await populated(here)
    for image in images:
        await gone(here, pointer_key(image.imageId))
    assert (await saved(here, there))[1] == []
    await restored(there, again)
    assert await shown(again) == {image.imageId for image in images}


# Deleted -----------------------------------------------------------------------------------


async def test_a_purged_tenant_goes_from_the_backup() -> None:
    here, there = memory(), memory()
    world, images = await populated(here)
    await world.write(".registry/globex.json", b'{"createdAt":"2025-03-09T12:00:00.000Z"}')
    await saved(here, there, thumbnails=True)
    now = utc_now()
    async for key in here.walk("globex", action="test"):
        await gone(here, key)
    for image in images:
        if image.tenantId == "globex":
            await gone(here, pointer_key(image.imageId))
    purge = TenantPurge(tenantId="globex", requestedAt=now, emptiedAt=now, completedAt=now)
    await world.write("purged/globex.json", orjson.dumps(purge.to_wire()))
    await gone(here, ".registry/globex.json")
    # A tenant of its name that was made since has its own.
    new = await world.upload("globex", at=NOON + timedelta(days=4000))
    _, found = await saved(here, there, thumbnails=True)
    assert not found
    left = {key for key in await contents(there, thumbnails=True) if key.startswith("globex/")}
    assert left == {key for key in await contents(here, thumbnails=True) if "globex/" in key} - {
        "purged/globex.json"
    }
    assert new.originalKey in left
    assert await there.get(".registry/globex.json", action="test") is None
    pointers = {key for key in await contents(there) if key.startswith("index/")}
    assert pointers == {key for key in await contents(here) if key.startswith("index/")}


async def test_a_new_tenant_on_the_day_of_a_purge_keeps_what_it_has() -> None:
    """Its metadata is damaged everywhere, so that the time of its bytes is told by the pointer."""
    here, there, again = memory(), memory(), memory()
    world = World(here)
    old, old_damaged = await world.upload("globex"), await world.upload("globex")
    await saved(here, there)
    new = await world.upload("globex", at=NOON + timedelta(hours=2))
    unnamed = await world.upload("globex", at=NOON + timedelta(hours=2))
    for image in (old_damaged, new, unnamed):
        await put(here, metadata_key_of(image), b"")
    await gone(there, metadata_key_of(old_damaged))
    await saved(here, there)
    everything = await contents(there)
    # The earlier tenant was purged in between; of the later one the source lost its bytes.
    at = (NOON + timedelta(hours=1)).isoformat()
    purge = TenantPurge(tenantId="globex", requestedAt=at, emptiedAt=at, completedAt=at)
    await world.write("purged/globex.json", orjson.dumps(purge.to_wire()))
    lost = [new.originalKey, unnamed.originalKey, pointer_key(unnamed.imageId)]
    purged = [
        key
        for image in (old, old_damaged)
        for key in (metadata_key_of(image), image.originalKey, pointer_key(image.imageId))
    ]
    for key in [*lost, *purged]:
        await gone(here, key)
    await put(there, pointer_key(unnamed.imageId), b"?")
    await saved(here, there)
    left = await contents(there)
    assert {new.originalKey, unnamed.originalKey} <= left.keys()
    assert not left.keys() & set(purged)
    # A backup that was not brought up to that purge brings back the same.
    for key, data in {**everything, "purged/globex.json": left["purged/globex.json"]}.items():
        await put(there, key, data)
    await gone(there, manifest.MANIFEST_KEY)
    await restored(there, again, unfinished=True)
    back = await contents(again)
    assert {new.originalKey, unnamed.originalKey} <= back.keys()
    assert not back.keys() & {key for key in purged if not key.startswith("index/")}


async def test_a_restore_brings_back_nothing_that_was_deleted() -> None:
    here, there = memory(), memory()
    world, images = await populated(here)
    await world.write(".trash/acme-corp/thrown.json", b"{}")
    await saved(here, there, thumbnails=True, trash=True)
    await gone(here, ".trash/acme-corp/thrown.json")
    before = await contents(there, thumbnails=True)
    await world.delete(images[0])
    await world.begin_deletion(images[1])
    now = utc_now()
    purge = TenantPurge(tenantId="globex", requestedAt=now, emptiedAt=now, completedAt=now)
    await world.write("purged/globex.json", orjson.dumps(purge.to_wire()))
    async for key in here.walk("globex", action="test"):
        await gone(here, key)
    left = await contents(here, thumbnails=True)
    await restored(there, here, into_existing=True)
    assert await contents(here, thumbnails=True) == left
    # Where a backup has both the image and its tombstone, the tombstone counts.
    for key, data in left.items():
        if "/deleted/" in key or key.startswith("purged/"):
            await put(there, key, data)
    again = memory()
    await gone(there, manifest.MANIFEST_KEY)
    await restored(there, again, unfinished=True)
    assert await shown(again) == await shown(here)
    assert before


# Damaged backups ---------------------------------------------------------------------------


async def test_what_is_damaged_in_a_backup_is_named_and_the_rest_restored() -> None:
    here, there, again = memory(), memory(), memory()
    _, images = await populated(here)
    await saved(here, there)
    whole = await contents(there)
    flipped = bytearray(whole[images[0].originalKey])
    flipped[100] ^= 1
    await put(there, images[0].originalKey, bytes(flipped))
    await put(there, images[1].originalKey, b"")
    await gone(there, metadata_key_of(images[2]))
    await put(there, pointer_key(images[3].imageId), b"?")
    bad = {
        images[0].originalKey: "damaged",
        images[1].originalKey: "damaged",
        metadata_key_of(images[2]): "missing",
        pointer_key(images[3].imageId): "damaged",
    }
    _, found = await checked(there)
    assert {each.key: each.fault for each in found} == bad
    _, found = await restored(there, again)
    assert {each.key: each.fault for each in found} == bad
    back = await contents(again)
    # A pointer says nothing that the metadata object does not say.
    assert set(whole) - set(back) == set(bad) - {pointer_key(images[3].imageId)}
    assert all(whole[key] == data for key, data in back.items())
    # The next run does not look at what it copied: whoever verified has to say what is to be again.
    again = memory()
    for key in bad:
        await put(there, key, whole[key])
    assert (await checked(there))[1] == []


async def test_a_damaged_piece_of_the_manifest() -> None:
    here, there, again = memory(), memory(), memory()
    await populated(here)
    await saved(here, there)
    pieces = [key async for key in there.walk(".backup/objects", action="test")]
    await put(there, pieces[0], (await get(there, pieces[0]))[:50])
    _, found = await checked(there)
    assert [each.key for each in found] == pieces
    _, found = await restored(there, again)
    assert [each.key for each in found] == pieces
    assert await contents(again) == await contents(here)
    _, found = await saved(here, there)
    assert [each.fault for each in found] == ["manifest_damaged"]
    assert (await checked(there))[1] == []

    await put(there, manifest.MANIFEST_KEY, b"{")
    with pytest.raises(BackupDamaged):
        await checked(there)
    await saved(here, there)
    assert (await checked(there))[1] == []


async def test_a_part_of_a_run_that_was_cut_off() -> None:
    here, there = memory(), memory()
    await populated(here)
    with pytest.raises(Killed):
        await saved(here, cast(Any, Mortal(there, 20)))
    await put(there, f"{manifest.UNFINISHED}/{uuid.uuid4()}/00000000.jsonl", b'{"key":')
    await gone(there, RUNNING)
    _, found = await saved(here, there)
    assert [each.fault for each in found] == ["manifest_damaged"]
    assert await contents(there) == await contents(here)


# Refused -----------------------------------------------------------------------------------


async def test_a_newer_format_is_refused() -> None:
    here, there = memory(), memory()
    await saved(here, there)
    said = parsed(await there.get(manifest.MANIFEST_KEY, action="test"))
    newer = said | {"format": manifest.FORMAT + 1, "version": "9.0", "new": 1}
    await put(there, manifest.MANIFEST_KEY, orjson.dumps(newer))
    for refused in (checked(there), restored(there, memory()), saved(here, there)):
        with pytest.raises(BackupRefused, match=r"version 9\.0"):
            await refused


async def test_what_is_no_backup_is_refused() -> None:
    here, there = memory(), memory()
    await populated(here)
    await put(there, "holiday/photo.jpg", b"?")
    with pytest.raises(BackupRefused, match="holiday"):
        await saved(here, there)
    for refused in (checked(there), restored(there, memory())):
        with pytest.raises(BackupRefused, match="no backup"):
            await refused
    with pytest.raises(BackupRefused, match="nothing"):
        await restored(memory(), memory(), unfinished=True)


async def test_a_backup_is_of_one_storage() -> None:
    here, there = memory(), memory()
    await saved(here, there)
    with pytest.raises(BackupRefused, match="--moved"):
        await saved(here, there, source="s3://other")
    await saved(here, there, source="s3://other", moved=True)
    await saved(here, there, source="s3://other")


async def test_one_run_at_a_time() -> None:
    here, there = memory(), memory()
    await populated(here)

    async def second() -> None:
        with pytest.raises(BackupRefused, match="Another"):
            await saved(here, there)

    watched = Watched(here, 5, second)
    await saved(cast(Any, watched), there)
    assert watched.reads > 5
    await saved(here, there)


async def test_a_storage_that_holds_images_is_refused() -> None:
    here, there = memory(), memory()
    await populated(here)
    await saved(here, there)
    left = await contents(here)
    with pytest.raises(BackupRefused, match="--into-existing"):
        await restored(there, here)
    assert await contents(here) == left
    # What a system writes before the first upload is no image.
    again = memory()
    await put(again, ".ping", b".")
    await put(again, ".admin/1", b"{}")
    await restored(there, again)
    # A restore that goes on is one of the same backup.
    with pytest.raises(Killed):
        await restored(there, cast(Any, Mortal(again := memory(), 30)))
    with pytest.raises(BackupRefused):
        await restored(there, again, source="s3://other")


async def test_into_existing_leaves_what_is_newer() -> None:
    here, there = memory(), memory()
    _, images = await populated(here)
    await saved(here, there)
    images[0].tags = {"new": "tag"}
    key, data = metadata_of(images[0])
    await put(here, key, data)
    await restored(there, here, into_existing=True)
    assert await get(here, key) == data
    assert (await saved(here, there))[1] == []
    assert await get(there, key) == data
