"""What image storage does, the same in memory, in a local folder and on a real S3 server."""

import asyncio
import os
import random
import uuid
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import orjson
import psutil
import pytest

from deeplens_streams.config import Settings
from deeplens_streams.deletion import image as deletion
from deeplens_streams.errors import (
    BadRequest,
    ConfigurationError,
    InvalidImageId,
    InvalidTenantId,
    NotFound,
    StorageUnavailable,
)
from deeplens_streams.host.ports import free_port
from deeplens_streams.identifiers import bare_uuid, new_image_id
from deeplens_streams.storage import Blobs, ImageStorage, open_storage
from deeplens_streams.storage.blobs import store as blobs_module
from deeplens_streams.storage.blobs.store import AlreadyThere, Write
from deeplens_streams.storage.duplicate_claims import DuplicateClaims
from deeplens_streams.storage.image_objects import (
    DamagedMetadata,
    Pointer,
    metadata_key_of,
    metadata_of,
    pointer_of,
)
from deeplens_streams.storage.inventory import Inventory
from deeplens_streams.storage.object_keys import InvalidObjectKey, day_of
from deeplens_streams.storage.tenant_records import TenantRecords
from deeplens_streams.storage.tombstones import Tombstones
from models.deletion import TenantPurge
from models.images import StoredImage
from models.tenants import SYSTEM, Limits, TenantRecord
from tests.support.stored_images import NOON, blobs, image, iso, storage, url

__all__ = ["blobs", "storage", "url"]  # fixtures


@pytest.fixture
def claims(blobs: Blobs) -> DuplicateClaims:
    return DuplicateClaims(blobs)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "upload"
    path.write_bytes(os.urandom(300_000))
    return path


def another(source: Path) -> Path:
    """Return another name of the file: what is stored may be moved away."""
    name = source.with_name(str(uuid.uuid4()))
    name.hardlink_to(source)
    return name


async def put(storage: ImageStorage, stored: StoredImage) -> StoredImage:
    await storage.put_image(stored, b"bytes")
    return stored


async def listed(
    storage: ImageStorage, *, tenant: str = "acme-corp", limit: int
) -> list[list[str]]:
    """Return the IDs of every page."""
    pages, cursor = [], None
    while True:
        page = await storage.list_images(tenant=tenant, limit=limit, cursor=cursor)
        pages.append([each.imageId for each in page.images])
        cursor = page.cursor
        if cursor is None:
            return pages


# Objects -------------------------------------------------------------------------------------


async def test_an_original_comes_back_as_it_was(storage: ImageStorage, source: Path) -> None:
    stored = image(storage)
    place = {"tenant": "acme-corp", "key": stored.originalKey}
    assert await storage.get(**place) is None
    assert await storage.size(**place) is None
    await storage.put_image(stored, source)
    assert await storage.size(**place) == 300_000


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 3_000_000, 18_000_000])
async def test_originals_of_every_size(storage: ImageStorage, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    source = tmp_path / "upload"
    source.write_bytes(data)
    stored = image(storage)
    place = {"tenant": "acme-corp", "key": stored.originalKey}
    await storage.put_image(stored, source)
    assert await storage.size(**place) == size
    assert await storage.get(**place) == data


async def test_originals_from_memory(storage: ImageStorage) -> None:
    for size in (0, 1, 16_383, 16_384, 16_385, 262_144, 262_145):
        stored, data = image(storage), os.urandom(size)
        place = {"tenant": "acme-corp", "key": stored.originalKey}
        await storage.put_image(stored, data)
        assert await storage.size(**place) == size
        assert await storage.get(**place) == data


@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_picture_is_stored_whole(
    storage: ImageStorage, source: Path, in_memory: bool
) -> None:
    stored, data = image(storage), source.read_bytes()  # noqa: ASYNC240 -- before anything runs
    await storage.put_image(stored, data if in_memory else source)
    assert await storage.get(tenant="acme-corp", key=stored.originalKey) == data
    found = await storage.find(stored.imageId)
    assert found is not None
    assert found.to_wire() == stored.to_wire()
    assert await listed(storage, limit=5) == [[stored.imageId]]


async def test_a_picture_lies_where_its_tenant_is(storage: ImageStorage, source: Path) -> None:
    stored = image(storage)
    stored.tenantId = "acmecorp"
    with pytest.raises(InvalidObjectKey):
        await storage.put_image(stored, source)
    assert await storage.find(stored.imageId) is None


async def test_a_stream_is_cut_where_it_was_asked(storage: ImageStorage, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    source = tmp_path / "upload"
    source.write_bytes(data)
    stored = image(storage)
    place = {"tenant": "acme-corp", "key": stored.originalKey}
    await storage.put_image(stored, source)
    for start, end in [(0, None), (5, None), (0, 1), (2_999_999, 3_000_000), (7, 2_500_000)]:
        chunks = [chunk async for chunk in storage.stream(**place, start=start, end=end)]
        assert b"".join(chunks) == data[start:end]
        assert max(map(len, chunks)) <= 128 * 1024
    assert [chunk async for chunk in storage.stream(**place, start=9, end=9)] == []


async def test_a_stream_of_nothing_says_so(storage: ImageStorage) -> None:
    key = image(storage).originalKey
    with pytest.raises(NotFound):
        [chunk async for chunk in storage.stream(tenant="acme-corp", key=key)]


async def test_thumbnails(storage: ImageStorage) -> None:
    place = {"tenant": "acme-corp", "key": image(storage).thumbnailKey}
    await storage.put_thumbnail(**place, data=b"first")
    await storage.put_thumbnail(**place, data=b"second")
    assert await storage.get(**place) == b"second"
    await storage.delete_object(**place)
    await storage.delete_object(**place)
    assert await storage.get(**place) is None


async def test_a_missing_source_is_no_success(storage: ImageStorage, tmp_path: Path) -> None:
    stored = image(storage)
    with pytest.raises(StorageUnavailable):
        await storage.put_image(stored, tmp_path / "gone")
    assert await storage.get(tenant="acme-corp", key=stored.originalKey) is None
    assert await storage.find(stored.imageId) is None


async def test_a_cancelled_upload_leaves_all_or_nothing(
    storage: ImageStorage, tmp_path: Path
) -> None:
    source = tmp_path / "upload"
    for wait in (0, 0.001, 0.005, 0.02, 0.05):
        source.write_bytes(bytes(40_000_000))
        stored = image(storage)
        upload = asyncio.ensure_future(storage.put_image(stored, source))
        await asyncio.wait({upload}, timeout=wait)
        upload.cancel()
        await asyncio.wait({upload})
        size = await storage.size(tenant="acme-corp", key=stored.originalKey)
        assert size in (None, 40_000_000)
    # What it held is free again: others go through, more than fit beside it.
    source.write_bytes(bytes(1_000_000))
    await asyncio.gather(*(storage.put_image(image(storage), another(source)) for _ in range(60)))


# Conditional writes --------------------------------------------------------------------------


async def test_all_that_a_tenant_has_goes_by_its_keys(
    storage: ImageStorage, blobs: Blobs, claims: DuplicateClaims
) -> None:
    stored, theirs = image(storage), image(storage, tenant="acme")
    await storage.put_image(stored, b"bytes", claim=claims.pending(stored))
    await storage.put_image(theirs, b"bytes")
    key, _ = metadata_of(stored)
    await blobs.put(Write(key, b"{"), action="damage")
    await blobs.put(Write("acme-corp/original/notes.txt", b"by hand"), action="litter")
    found = [each async for each in storage.walk_keys(tenant="acme-corp")]
    assert len(found) == 4
    for each in found:
        await storage.remove_listed(tenant="acme-corp", key=each)
    assert [each async for each in storage.walk_keys(tenant="acme-corp")] == []
    assert await blobs.get(pointer_of(stored)[0], action="look") is None
    assert await storage.find(theirs.imageId) is not None
    (other, *_) = [each async for each in storage.walk_keys(tenant="acme")]
    for bad in (other, "acme-corp/../acme/original/x", "acme-corp/x", "index/x", ".ping", ""):
        with pytest.raises(InvalidObjectKey):
            await storage.remove_listed(tenant="acme-corp", key=bad)


async def test_of_many_who_make_an_object_one_succeeds(blobs: Blobs) -> None:
    async def make(number: int) -> bool:
        try:
            write = Write("acme-corp/checksum/x", b"%d" % number, if_absent=True)
            await blobs.put(write, action="try")
        except AlreadyThere:
            return False
        return True

    made = await asyncio.gather(*(make(number) for number in range(20)))
    assert sum(made) == 1
    winner = made.index(True)
    assert await blobs.get("acme-corp/checksum/x", action="look") == b"%d" % winner


async def test_of_many_who_swap_an_object_one_succeeds(blobs: Blobs) -> None:
    key = "acme-corp/checksum/x"
    assert not await blobs.swap(Write(key, b"new"), old=b"old", action="try")
    await blobs.put(Write(key, b"old"), action="begin")
    assert not await blobs.swap(Write(key, b"new"), old=b"another", action="try")
    assert await blobs.get(key, action="look") == b"old"
    swapped = await asyncio.gather(
        *(blobs.swap(Write(key, b"%d" % number), old=b"old", action="try") for number in range(20))
    )
    assert sum(swapped) == 1
    assert await blobs.get(key, action="look") == b"%d" % swapped.index(True)
    assert len(await blobs.children("acme-corp/checksum", action="look")) == 1


async def test_what_may_not_replace_stops_the_writes_behind_it(blobs: Blobs) -> None:
    await blobs.put(Write("a/there", b"1"), action="begin")
    with pytest.raises(AlreadyThere):
        await blobs.put(
            Write("a/before", b"2"),
            Write("a/there", b"3", if_absent=True),
            Write("a/behind", b"4"),
            action="try",
        )
    names = ("there", "before", "behind")
    found = [await blobs.get(f"a/{name}", action="look") for name in names]
    assert found == [b"1", b"2", None]


# Claims of duplicates ------------------------------------------------------------------------


async def test_a_claim_is_found_confirmed_and_released(
    storage: ImageStorage, claims: DuplicateClaims
) -> None:
    mine = image(storage)
    where = {"tenant": mine.tenantId, "checksum": mine.checksumSha256}
    assert await claims.find(**where) is None
    await storage.put_image(mine, b"bytes", claim=claims.pending(mine))
    found = await claims.find(**where)
    assert found is not None
    assert (found.image_id, found.confirmed) == (mine.imageId, False)
    other = image(storage)
    with pytest.raises(AlreadyThere):
        await storage.put_image(other, b"bytes", claim=claims.pending(other))
    assert await storage.find(other.imageId) is None
    await claims.confirm(other)  # it is not theirs
    await claims.release(**where, image_id=other.imageId)
    await claims.confirm(mine)
    found = await claims.find(**where)
    assert found is not None
    assert (found.image_id, found.confirmed) == (mine.imageId, True)
    assert await claims.find(tenant="acmecorp", checksum=mine.checksumSha256) is None
    await claims.release(**where, image_id=mine.imageId)
    assert await claims.find(**where) is None


async def test_of_many_who_take_over_a_claim_one_succeeds(
    storage: ImageStorage, claims: DuplicateClaims
) -> None:
    dead = image(storage)
    await storage.put_image(dead, b"bytes", claim=claims.pending(dead))
    old = await claims.find(tenant=dead.tenantId, checksum=dead.checksumSha256)
    assert old is not None
    others = [image(storage) for _ in range(8)]
    taken = await asyncio.gather(*(claims.take_over(each, old) for each in others))
    assert sum(taken) == 1
    found = await claims.find(tenant=dead.tenantId, checksum=dead.checksumSha256)
    assert found is not None
    assert found.image_id == others[taken.index(True)].imageId


async def test_a_damaged_claim_can_be_taken_over(
    blobs: Blobs, storage: ImageStorage, claims: DuplicateClaims
) -> None:
    mine = image(storage)
    await blobs.put(Write(claims.pending(mine).key, b"{"), action="damage")
    old = await claims.find(tenant=mine.tenantId, checksum=mine.checksumSha256)
    assert old is not None
    assert old.image_id == ""
    assert await claims.take_over(mine, old)


# Keys ----------------------------------------------------------------------------------------


async def test_a_key_belongs_to_one_tenant(storage: ImageStorage, source: Path) -> None:
    stored = image(storage)
    await storage.put_image(stored, source)
    for tenant in ("acmecorp", "acme", "index"):
        with pytest.raises(InvalidObjectKey):
            await storage.get(tenant=tenant, key=stored.originalKey)
        with pytest.raises(InvalidObjectKey):
            await storage.delete_object(tenant=tenant, key=stored.originalKey)
        with pytest.raises(InvalidObjectKey):
            [chunk async for chunk in storage.stream(tenant=tenant, key=stored.originalKey)]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "acme-corp",
        "acme-corp/",
        "acme-corp/original/../../other/original/2025-03-09/x.jpg",
        "acme-corp/../index/{uuid}",
        "index/{uuid}",
        "/acme-corp/original/2025-03-09/{uuid}.jpg",
        "acme-corp/original/2025-03-09/{uuid}.exe",
        "acme-corp/original/2025-03-09/{uuid}.jpg\n",
        "acme-corp/original/2025-03-09/{uuid}.jpg/more",
        "acme-corp/secret/2025-03-09/{uuid}.jpg",
        ".ping",
    ],
)
async def test_a_key_of_another_shape_is_refused(storage: ImageStorage, key: str) -> None:
    key = key.format(uuid=uuid.uuid4())
    for call in (storage.get, storage.size, storage.delete_object):
        with pytest.raises(InvalidObjectKey):
            await call(tenant="acme-corp", key=key)


@pytest.mark.parametrize("tenant", ["", ".", "..", "a/b", "Acme", "a_b", "../x", "a" * 64])
async def test_no_key_without_a_tenant(storage: ImageStorage, tenant: str) -> None:
    stored = image(storage)
    with pytest.raises(InvalidTenantId):
        storage.thumbnail_key(tenant=tenant, image_id=stored.imageId, uploaded_at=iso(NOON))
    with pytest.raises(InvalidTenantId):
        await storage.list_images(tenant=tenant, limit=1)
    stored.tenantId = tenant
    for make in (pointer_of, metadata_of):
        with pytest.raises(InvalidTenantId):
            make(stored)


def test_a_key_is_made_of_what_is_ours(storage: ImageStorage) -> None:
    image_id = new_image_id()
    key = storage.original_key(
        tenant="acme-corp", image_id=image_id, uploaded_at=iso(NOON), format="HEIF"
    )
    assert key == f"acme-corp/original/2025-03-09/{bare_uuid(image_id)}.heic"
    with pytest.raises(ValueError, match="EXE"):
        storage.original_key(
            tenant="acme-corp", image_id=image_id, uploaded_at=iso(NOON), format="EXE"
        )
    with pytest.raises(InvalidImageId):
        storage.thumbnail_key(tenant="acme-corp", image_id="../x", uploaded_at=iso(NOON))


# Metadata ------------------------------------------------------------------------------------


async def test_metadata_is_found_by_the_image_id_alone(storage: ImageStorage) -> None:
    stored = await put(storage, image(storage))
    found = await storage.find(stored.imageId)
    assert found is not None
    assert found.to_wire() == stored.to_wire()
    assert await storage.find(new_image_id()) is None


async def test_metadata_of_another_tenant_is_not_there(storage: ImageStorage) -> None:
    stored = await put(storage, image(storage))
    own = await storage.get_metadata(tenant="acme-corp", image_id=stored.imageId)
    assert own is not None
    assert own.imageId == stored.imageId
    assert await storage.get_metadata(tenant="acmecorp", image_id=stored.imageId) is None


async def test_a_pointer_alone_is_no_image(blobs: Blobs, storage: ImageStorage) -> None:
    stored = image(storage)
    await blobs.put(Write(*pointer_of(stored)), action="cut off")
    assert await storage.find(stored.imageId) is None
    assert await listed(storage, limit=5) == [[]]


async def test_an_inventory_goes_by_keys_alone(blobs: Blobs, storage: ImageStorage) -> None:
    """What is damaged is met by whoever reads it; a pointer is made again."""
    inventory = Inventory(blobs)
    there, damaged = await put(storage, image(storage)), await put(storage, image(storage))
    await blobs.put(Write(metadata_of(damaged)[0], metadata_of(there)[1]), action="damage")
    found = {each.image_id: each async for each in inventory.images(tenant="acme-corp")}
    assert found.keys() == {there.imageId, damaged.imageId}
    said = await inventory.image(found[there.imageId])
    assert said is not None
    assert said.to_wire() == there.to_wire()
    with pytest.raises(DamagedMetadata):
        await inventory.image(found[damaged.imageId])
    day = f"acme-corp/metadata/{day_of(found[there.imageId].ms)}"
    assert {key async for key in inventory.keys(day)} == {each.key for each in found.values()}
    assert [each async for each in inventory.deleted(tenant="acme-corp")] == []
    pointer = await inventory.pointer(there.imageId)
    assert pointer == Pointer("acme-corp", found[there.imageId].ms)
    key = f"index/{bare_uuid(there.imageId)}"
    for data in (b"{", b"", b"7", b'{"tenantId": 7, "uploadedAt": 1e300}'):
        await blobs.put(Write(key, data), action="damage")
        with pytest.raises(DamagedMetadata):
            await inventory.pointer(there.imageId)
    await blobs.delete(key, action="lose")
    assert await inventory.pointer(there.imageId) is None
    await inventory.point(there.imageId, tenant="acme-corp", ms=pointer.ms)
    again = await storage.find(there.imageId)
    assert again is not None
    assert again.to_wire() == there.to_wire()


async def test_another_s_content_is_no_image(blobs: Blobs, storage: ImageStorage) -> None:
    mine, theirs = await put(storage, image(storage)), image(storage, tenant="acmecorp")
    await put(storage, theirs)
    await blobs.put(Write(metadata_of(mine)[0], metadata_of(theirs)[1]), action="damage")
    with pytest.raises(DamagedMetadata):
        await storage.find(mine.imageId)
    with pytest.raises(DamagedMetadata):
        await storage.get_metadata(
            tenant="acme-corp", image_id=mine.imageId, uploaded_at=mine.uploadedAt
        )
    assert await listed(storage, limit=5) == [[]]


async def test_nothing_is_streamed_of_an_empty_object(blobs: Blobs) -> None:
    await blobs.put(Write("empty", b""), action="test")
    assert [each async for each in blobs.stream("empty", action="test")] == []


async def test_an_object_is_copied(blobs: Blobs) -> None:
    await blobs.put(Write("a", b"one"), action="test")
    assert await blobs.copy("a", "b/c", action="test")
    assert not await blobs.copy("none", "d", action="test")
    await blobs.put(Write("a", b"two"), action="test")
    assert await blobs.get("b/c", action="test") == b"one"


async def test_deleted_metadata_is_gone(storage: ImageStorage) -> None:
    stored = await put(storage, image(storage))
    kept = await put(storage, image(storage))
    await storage.delete_metadata(tenant="acmecorp", image_id=stored.imageId)
    assert await storage.find(stored.imageId) is not None
    for _ in range(2):
        await storage.delete_metadata(tenant="acme-corp", image_id=stored.imageId)
        assert await storage.find(stored.imageId) is None
    assert await listed(storage, limit=5) == [[kept.imageId]]


async def test_a_tenant_may_be_called_index(storage: ImageStorage) -> None:
    theirs = await put(storage, image(storage, tenant="index"))
    ours = await put(storage, image(storage))
    assert await listed(storage, tenant="index", limit=5) == [[theirs.imageId]]
    assert await listed(storage, limit=5) == [[ours.imageId]]
    found = await storage.find(theirs.imageId)
    assert found is not None
    assert found.tenantId == "index"
    with pytest.raises(InvalidObjectKey):
        await storage.get(tenant="index", key=f"index/{bare_uuid(ours.imageId)}")


# Listing -------------------------------------------------------------------------------------


async def test_a_listing_is_newest_first_and_complete(storage: ImageStorage) -> None:
    moments = [
        NOON + timedelta(days=day, minutes=minute, milliseconds=ms)
        for day in (-40, 0, 1)
        for minute in (0, 1, 700)
        for ms in (0, 1, 999)
    ]
    images = [image(storage, at=moment) for moment in moments]
    await asyncio.gather(*(put(storage, each) for each in images))
    await put(storage, image(storage, tenant="acmecorp", at=NOON))
    expected = [each.imageId for each in reversed(images)]
    for limit in (1, 2, 26, 27, 28, 200):
        pages = await listed(storage, limit=limit)
        assert [image_id for page in pages for image_id in page] == expected
        assert all(len(page) == limit for page in pages[:-1])
        assert pages[-1]


async def test_pages_hold_while_pictures_come_and_go(storage: ImageStorage) -> None:
    images = [
        await put(storage, image(storage, at=NOON + timedelta(seconds=second)))
        for second in range(6)
    ]
    first = await storage.list_images(tenant="acme-corp", limit=2)
    assert [each.imageId for each in first.images] == [images[5].imageId, images[4].imageId]
    await put(storage, image(storage, at=NOON + timedelta(seconds=9)))
    await storage.delete_metadata(tenant="acme-corp", image_id=images[4].imageId)
    await storage.delete_metadata(tenant="acme-corp", image_id=images[3].imageId)
    second = await storage.list_images(tenant="acme-corp", limit=2, cursor=first.cursor)
    assert [each.imageId for each in second.images] == [images[2].imageId, images[1].imageId]


async def test_an_unknown_tenant_has_an_empty_listing(storage: ImageStorage) -> None:
    page = await storage.list_images(tenant="nobody", limit=10)
    assert page.images == []
    assert page.cursor is None


async def test_a_cursor_is_for_the_tenant_that_was_given_it(storage: ImageStorage) -> None:
    for tenant in ("acme-corp", "acmecorp"):
        for second in range(3):
            await put(storage, image(storage, tenant=tenant, at=NOON + timedelta(seconds=second)))
    page = await storage.list_images(tenant="acme-corp", limit=1)
    cursor = page.cursor
    assert cursor is not None
    swapped = cursor[:10] + ("A" if cursor[10] != "A" else "B") + cursor[11:]
    foreign = [cursor + "=", cursor + "\n", cursor[:-1], swapped, "x", "../../..", "A" * 40, "é"]
    for bad in foreign:
        with pytest.raises(BadRequest, match="cursor"):
            await storage.list_images(tenant="acme-corp", limit=1, cursor=bad)
    with pytest.raises(BadRequest, match="cursor"):
        await storage.list_images(tenant="acmecorp", limit=1, cursor=cursor)


# Surveys -------------------------------------------------------------------------------------


async def test_a_survey_finds_every_image_and_names_what_is_damaged(
    storage: ImageStorage, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "_LISTED", 3)
    moments = [NOON + timedelta(days=day, minutes=minute) for day in (0, 1) for minute in (0, 1)]
    images = [image(storage, at=moment) for moment in moments for _ in range(3)]
    await asyncio.gather(*(put(storage, each) for each in images))
    await put(storage, image(storage, tenant="acmecorp"))
    foreign = image(storage, tenant="acmecorp").to_wire()
    damaged = [b"{", orjson.dumps(foreign), orjson.dumps(images[2].to_wire() | {"originalKey": ""})]
    for each, data in zip(images, damaged, strict=False):
        await blobs.put(Write(metadata_key_of(each), data), action="damage")
    stranger = metadata_key_of(images[0]).rpartition("/")[0]
    await blobs.put(Write(f"{stranger}/README", b"a stranger's"), action="begin")
    found = [each async for each in storage.survey(tenant="acme-corp")]
    assert len(found) == len(images)
    by_id = dict(found)
    assert by_id.keys() == {each.imageId for each in images}
    whole = {each: stored.to_wire() for each, stored in by_id.items() if stored is not None}
    assert whole == {each.imageId: each.to_wire() for each in images[3:]}
    assert [each async for each in storage.survey(tenant="nobody")] == []


async def test_every_original_and_thumbnail_is_walked(
    storage: ImageStorage, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "_LISTED", 3)
    wanted = set()
    for day in range(3):
        for _ in range(5):
            stored = image(storage, at=NOON + timedelta(days=day))
            await storage.put_image(stored, b"bytes")
            await storage.put_thumbnail(tenant="acme-corp", key=stored.thumbnailKey, data=b"t")
            wanted |= {(key, stored.imageId) for key in (stored.originalKey, stored.thumbnailKey)}
    await storage.put_image(image(storage, tenant="acmecorp"), b"bytes")
    await blobs.put(Write("acme-corp/original/2025-03-09/README", b"a stranger's"), action="begin")
    found = [each async for each in storage.walk_files(tenant="acme-corp")]
    assert len(found) == len(wanted)
    assert set(found) == wanted


# Backends ------------------------------------------------------------------------------------


async def test_a_working_backend_answers(storage: ImageStorage) -> None:
    await storage.ping()
    assert await listed(storage, limit=5) == [[]]


async def test_fifty_large_uploads_at_once_take_little_memory(
    storage: ImageStorage, url: str, tmp_path: Path
) -> None:
    if url.startswith("memory"):
        pytest.skip("memory is where this one keeps them")
    source = tmp_path / "upload"
    source.write_bytes(os.urandom(10_000_000))
    process = psutil.Process()
    before = process.memory_info().rss
    peak = before
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.002)

    watcher = asyncio.create_task(watch())
    images = [image(storage) for _ in range(50)]
    await asyncio.gather(*(storage.put_image(each, another(source)) for each in images))
    done.set()
    await watcher
    assert await storage.size(tenant="acme-corp", key=images[-1].originalKey) == 10_000_000
    assert peak - before < 100_000_000


async def test_local_leftovers_and_strangers_are_not_listed(tmp_path: Path) -> None:
    storage = open_storage(Settings(data_dir=tmp_path))
    stored = await put(storage, image(storage))
    (minute,) = (tmp_path / "images" / "acme-corp" / "metadata").glob("*/*")
    (found,) = minute.iterdir()
    (minute / f"{found.name}#1").write_bytes(b"{half a")
    (minute / "README").write_text("a stranger's")
    damaged = found.name.replace(bare_uuid(stored.imageId), str(uuid.uuid4()))
    (minute / damaged).write_bytes(b"{}")
    assert await listed(storage, limit=5) == [[stored.imageId]]
    surveyed = [each async for each in storage.survey(tenant="acme-corp")]
    assert len(surveyed) == 2
    assert [each for each, content in surveyed if content is not None] == [stored.imageId]


async def test_a_damaged_object_is_an_error_where_it_is_asked_for(tmp_path: Path) -> None:
    storage = open_storage(Settings(data_dir=tmp_path))
    stored = await put(storage, image(storage))
    (path,) = (tmp_path / "images" / "acme-corp" / "metadata").glob("*/*/*.json")
    path.write_bytes(orjson.dumps({"imageId": 5}))
    with pytest.raises(Exception, match="metadata object cannot be read") as caught:
        await storage.find(stored.imageId)
    assert str(tmp_path) not in str(caught.value)


async def test_a_folder_is_no_object(tmp_path: Path) -> None:
    storage = open_storage(Settings(data_dir=tmp_path))
    stored = await put(storage, image(storage))
    (tmp_path / "images" / stored.thumbnailKey).mkdir(parents=True)
    assert await storage.size(tenant="acme-corp", key=stored.thumbnailKey) is None


async def test_a_folder_that_went_away_is_unavailable(tmp_path: Path) -> None:
    storage = open_storage(Settings(data_dir=tmp_path))
    stored = image(storage)
    folder = tmp_path / "images"
    folder.rmdir()
    folder.write_text("no folder any more")
    upload = tmp_path / "upload"
    upload.write_bytes(b"x")
    place = {"tenant": "acme-corp", "key": stored.originalKey}
    for call in (
        storage.ping(),
        storage.put_image(stored, b"x"),
        storage.put_image(stored, upload),
        storage.get(**place),
        storage.size(**place),
        storage.find(stored.imageId),
        storage.list_images(tenant="acme-corp", limit=1),
        storage.delete_object(**place),
    ):
        with pytest.raises(StorageUnavailable) as caught:
            await call
        assert str(tmp_path) not in str(caught.value)


async def test_a_server_that_is_away_is_unavailable_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    storage = open_storage(Settings(storage_url="s3://bucket"))
    async with asyncio.timeout(30):
        with pytest.raises(StorageUnavailable):
            await storage.ping()


@pytest.mark.s3
async def test_a_wrong_key_is_unavailable(
    url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not url.startswith("s3"):
        pytest.skip("only a server asks for keys")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    storage = open_storage(Settings(storage_url=url))
    with pytest.raises(StorageUnavailable):
        await storage.ping()
    with pytest.raises(StorageUnavailable):
        await storage.find(new_image_id())


async def test_a_deletion_is_known_until_it_is_sent(blobs: Blobs, storage: ImageStorage) -> None:
    tombstones, images = Tombstones(blobs), [image(storage) for _ in range(3)]
    assert [each async for each in tombstones.begun()] == []
    for each in images:
        await tombstones.begin(deletion._tombstone(each))
    begun = {image_id: tombstone async for image_id, tombstone in tombstones.begun()}
    assert begun.keys() == {each.imageId for each in images}
    for each in images:
        tombstone = begun[each.imageId]
        assert tombstone is not None
        assert tombstone.originalKey == each.originalKey
    assert await storage.tenants() == []
    for _ in range(2):
        await tombstones.sent(images[0].imageId)
    assert {image_id async for image_id, _ in tombstones.begun()} == {
        each.imageId for each in images[1:]
    }


@pytest.mark.parametrize("bad", ["ftp://x/y", "https://example.org/x", "nonsense", "s3://"])
def test_a_url_of_no_storage_is_a_sentence(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="Images cannot be kept at"):
        open_storage(Settings(storage_url=bad))


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="Images cannot be kept at") as caught:
        open_storage(Settings(data_dir=tmp_path / "file"))
    assert "\n" not in caught.value.message


def test_a_local_url_names_the_folder_as_it_is(url: str, storage: ImageStorage) -> None:
    if url.startswith("file"):
        assert Path(unquote(urlsplit(url).path)).is_dir()


# What is kept of tenants ----------------------------------------------------------------------


def record(tenant: str, revision: int, *, at: str = "2026-01-01T00:00:00.000Z") -> TenantRecord:
    return TenantRecord(
        tenantId=tenant,
        state="active",
        createdAt=at,
        updatedAt=at,
        revision=revision,
        limits=Limits(images=revision),
        keys=[],
    )


async def test_of_records_that_are_written_at_once_the_latest_stays(blobs: Blobs) -> None:
    records = TenantRecords(blobs, Tombstones(blobs))
    order = random.Random(7).sample(range(12), 12)
    await asyncio.gather(*(records.put(record("acme", number)) for number in order))
    assert await records.find("acme") == record("acme", 11)
    await records.put(record("acme", 3))
    assert await records.find("acme") == record("acme", 11)
    another = record("acme", 0, at="2026-01-02T00:00:00.000Z")
    await records.put(another)
    assert await records.find("acme") == another


async def test_records_and_purges_are_listed_whatever_tenants_are_called(
    blobs: Blobs, storage: ImageStorage
) -> None:
    tombstones = Tombstones(blobs)
    records = TenantRecords(blobs, tombstones)
    assert (await records.tenants(), await tombstones.purged_tenants()) == (set(), set())
    for tenant in ("purged", "registry", SYSTEM):
        await records.put(record(tenant, 1))
    await storage.put_image(image(storage, tenant="purged"), b"bytes")
    await tombstones.put_purge(TenantPurge(tenantId="purged", requestedAt=iso(NOON)))
    assert await records.tenants() == {"purged", "registry", SYSTEM}
    assert await tombstones.purged_tenants() == {"purged"}
    assert await storage.tenants() == ["purged"]
    await records.remove("registry", created_at=record("registry", 1).createdAt)
    await records.remove("purged", created_at=None)
    assert await records.tenants() == {"purged", SYSTEM}, "of the second nobody knows that it went"
