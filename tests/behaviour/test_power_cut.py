"""What is left of a local folder when the power is cut at any moment.

The disk of these tests is the worst that the rules allow: what nobody has synced may be there or
not, name by name and file by file, in whatever order it was written.
"""

import os
import random
from collections.abc import Collection
from pathlib import Path

import pytest
from obstore.store import LocalStore

from deeplens_streams.storage import ObjectImages, image_objects, object_keys
from deeplens_streams.storage.blobs.group_sync import GroupSync
from deeplens_streams.storage.blobs.local import LocalBlobs
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.storage.duplicate_claims import DuplicateClaims
from deeplens_streams.storage.tombstones import Tombstones
from deeplens_streams.storage.trash import Reason, Trash
from models.deletion import Tombstone
from models.images import StoredImage
from models.trash import TrashKind
from tests.support.stored_images import image

#: A file or a folder: its number may be given again to another file, at another time.
Inode = tuple[int, int]
#: What is on a disk: the bytes behind each path.
Left = dict[str, bytes]


class Disk:
    """Knows what of a folder is certain to be on the disk, and draws what else may be.

    Attributes
    ----------
    cuts : what may be left if the power is cut at one of the moments so far.
    """

    def __init__(self, root: Path, *, has_syncfs: bool = False) -> None:
        self.root, self._has_syncfs = root, has_syncfs
        self._names: dict[Inode, dict[str, Inode]] = {}
        self._bytes: dict[Inode, bytes] = {}
        self._chance = random.Random(3)
        self.cuts: list[Left] = []

    def sync(self, path: Path) -> None:
        self._cut()
        self._settle(path)
        self._cut()

    def sync_all(self, paths: Collection[Path]) -> bool:
        self._cut()
        if self._has_syncfs:
            for path in (self.root, *self.root.rglob("*")):
                self._settle(path)
            self._cut()
        return self._has_syncfs

    def _settle(self, path: Path) -> None:
        if path.is_dir():
            self._names[_inode(path)] = {each.name: _inode(each) for each in path.iterdir()}
        else:
            self._bytes[_inode(path)] = path.read_bytes()

    def _cut(self) -> None:
        shares = (0.0, 1.0, *(self._chance.random() for _ in range(8)))
        self.cuts.extend(self.left(share) for share in shares)

    def left(self, share: float) -> Left:
        """Draw what is left where `share` of what is not certain has reached the disk."""
        found: Left = {}
        self._look(self.root, share, found)
        return found

    def _look(self, folder: Path, share: float, found: Left) -> None:
        certain = self._names.get(_inode(folder), {})
        there = {each.name: each for each in folder.iterdir()}
        for name in {**certain, **there}:
            path, key = folder / name, (folder / name).relative_to(self.root).as_posix()
            is_new = name in there and certain.get(name) != _inode(path)
            is_old = name in certain and (name not in there or is_new)
            if is_old and self._chance.random() >= share:
                found[key] = self._bytes.get(certain[name], b"")
            elif name not in there or (is_new and self._chance.random() >= share):
                continue
            elif path.is_dir():
                self._look(path, share, found)
            else:
                found[key] = self._bytes_of(path, share)

    def _bytes_of(self, path: Path, share: float) -> bytes:
        """Return the bytes of a file, and if nobody has synced it, those or fewer."""
        data = path.read_bytes()
        if _inode(path) in self._bytes or self._chance.random() < share / 2:
            return data
        return data[: self._chance.choice((0, len(data) // 2))]


def _inode(path: Path) -> Inode:
    status = path.stat()
    return status.st_ino, 0 if path.is_dir() else status.st_mtime_ns


@pytest.fixture(params=[False, True], ids=["one by one", "all at once"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    (tmp_path / "images").mkdir()
    return Disk(tmp_path / "images", has_syncfs=request.param)


@pytest.fixture
def blobs(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> LocalBlobs:
    monkeypatch.setattr("deeplens_streams.storage.blobs.group_sync._FEW", 1)
    blobs = LocalBlobs(LocalStore(disk.root))
    blobs._group = GroupSync(disk.sync, disk.sync_all)
    return blobs


def objects_of(stored: StoredImage, data: bytes) -> Left:
    """Return the objects of an answered upload, but for its claim, which names the time."""
    return {
        stored.originalKey: data,
        image_objects.pointer_of(stored)[0]: image_objects.pointer_of(stored)[1],
        image_objects.metadata_of(stored)[0]: image_objects.metadata_of(stored)[1],
    }


def claim_of(stored: StoredImage) -> str:
    return object_keys.claim_key(tenant=stored.tenantId, checksum=stored.checksumSha256)


@pytest.mark.parametrize("spooled", [False, True])
async def test_a_picture_is_whole_or_not_there(
    disk: Disk, blobs: LocalBlobs, tmp_path: Path, spooled: bool
) -> None:
    storage = ObjectImages(blobs)
    answered: Left = {}
    for number in range(3):
        stored, data = image(storage), os.urandom(1000)
        source = tmp_path / f"upload-{number}"
        source.write_bytes(data)
        stored.checksumSha256 = f"{number:064}"
        claim = Write(claim_of(stored), b"the claim", if_absent=True)
        disk.cuts.clear()
        await storage.put_image(stored, source if spooled else data, claim=claim)

        whole = {**objects_of(stored, data), claim.key: b"the claim"}
        for left in disk.cuts:
            named = {key: data for key, data in left.items() if "#" not in key}
            assert named.items() <= (whole | answered).items(), "a name with other bytes"
            assert answered.items() <= named.items(), "an earlier picture"
            if image_objects.metadata_of(stored)[0] in named:
                assert whole.items() <= named.items(), "a picture without its parts"
        answered |= whole
        for share in (0.0, 0.5, 1.0):
            assert answered.items() <= disk.left(share).items(), "an answered upload"


async def test_a_deletion_is_done_or_written_down(disk: Disk, blobs: LocalBlobs) -> None:
    storage, tombstones = ObjectImages(blobs), Tombstones(blobs)
    stored = image(storage)
    await storage.put_image(stored, b"bytes")
    tombstone = Tombstone(
        imageId=stored.imageId,
        tenantId=stored.tenantId,
        correlationId=stored.correlationId,
        uploadedAt=stored.uploadedAt,
        requestedAt=stored.uploadedAt,
        originalKey=stored.originalKey,
        thumbnailKey=stored.thumbnailKey,
        checksumSha256=stored.checksumSha256,
        models=[],
        steps={},
    )
    metadata = image_objects.metadata_key_of(stored)
    mark = object_keys.deletion_key(stored.imageId)
    grave = object_keys.tombstone_key(
        tenant=stored.tenantId, image_id=stored.imageId, ms=object_keys.epoch_ms(stored.uploadedAt)
    )
    disk.cuts.clear()
    await tombstones.begin(tombstone)
    await tombstones.put(tombstone)
    await storage.remove_metadata(tombstone)
    begun, disk.cuts = disk.cuts, []
    for left in begun:
        assert metadata in left or (mark in left and grave in left)
    assert metadata not in disk.left(0.0)
    await tombstones.sent(stored.imageId)
    for left in disk.cuts:
        assert metadata not in left
        assert grave in left
    assert mark not in disk.left(0.0)


async def test_what_goes_to_the_trash_and_comes_back_is_never_nowhere(
    disk: Disk, blobs: LocalBlobs
) -> None:
    storage, trash = ObjectImages(blobs), Trash(blobs)
    stored, why = image(storage), Reason("a test", "audit-1")
    await storage.put_image(stored, b"the picture")
    key = stored.originalKey
    disk.cuts.clear()
    moved = await trash.move(
        key, kind=TrashKind.ORIGINAL, tenant=stored.tenantId, image_id=stored.imageId, why=why
    )
    assert moved
    # The first picture of its day was the only one: its folder is gone, too.
    await storage.forget_tenant(tenant=stored.tenantId)
    (entry,) = (await trash.page(limit=9)).entries
    await trash.restore(entry, replace=False, why=why)
    for left in disk.cuts:
        assert b"the picture" in left.values()
    assert disk.left(0.0)[key] == b"the picture"


async def test_a_claim_is_the_old_one_or_the_new(disk: Disk, blobs: LocalBlobs) -> None:
    claims, stored = DuplicateClaims(blobs), image(ObjectImages(blobs))
    await blobs.put(claims.pending(stored), action="claim")
    pending = await blobs.get(claim_of(stored), action="look")
    disk.cuts.clear()
    await claims.confirm(stored)
    confirmed = await blobs.get(claim_of(stored), action="look")
    assert confirmed != pending
    assert {left.get(claim_of(stored)) for left in disk.cuts} <= {pending, confirmed, None}
    assert disk.left(0.0)[claim_of(stored)] == confirmed
