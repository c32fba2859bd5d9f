"""Many writes at once are synced together, and what cannot be synced fails alone."""

import asyncio
import errno
import os
import threading
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest
from obstore.store import LocalStore

from deeplens_streams.config import Settings
from deeplens_streams.errors import StorageFull, StorageUnavailable
from deeplens_streams.storage import ObjectImages, open_blobs
from deeplens_streams.storage.blobs import disk_sync
from deeplens_streams.storage.blobs.disk_sync import sync_file_systems, sync_path
from deeplens_streams.storage.blobs.group_sync import GroupSync, Steps
from deeplens_streams.storage.blobs.local import LocalBlobs
from deeplens_streams.storage.blobs.store import Write
from tests.support.stored_images import image


class Syncs(GroupSync):
    """Counts, syncs nothing, and holds its first sync until it is let go."""

    def __init__(self, *, has_syncfs: bool = True) -> None:
        super().__init__(self.one, self.all)
        self.has_syncfs = has_syncfs
        self.reached, self.let_go = threading.Event(), threading.Event()
        self.singly: Counter[Path] = Counter()
        self.at_once = 0
        self.broken: dict[str, int] = {}

    def one(self, path: Path) -> None:
        self.reached.set()
        self.let_go.wait()
        self.singly[path] += 1
        for part, number in self.broken.items():
            if part in path.name:
                raise OSError(number, "as the system says")

    def all(self, paths: Collection[Path]) -> bool:
        self.let_go.wait()
        self.at_once += self.has_syncfs
        return self.has_syncfs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def on(folder: Path, syncs: Syncs) -> LocalBlobs:
    blobs = LocalBlobs(LocalStore(folder))
    blobs._group = syncs
    return blobs


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def test_fifty_uploads_at_once_cost_few_syncs(folder: Path) -> None:
    syncs = Syncs()
    storage = ObjectImages(on(folder, syncs))
    uploads = [asyncio.create_task(storage.put_image(image(storage), bytes(10))) for _ in range(50)]
    await asyncio.sleep(0)
    syncs.let_go.set()
    await asyncio.gather(*uploads)
    # Three for those that were there at the first, and three for all others.
    assert syncs.at_once <= 6
    assert syncs.singly.total() <= 6 * 16


async def test_a_lone_upload_syncs_what_it_wrote_and_nothing_twice(folder: Path) -> None:
    syncs = Syncs()
    syncs.let_go.set()
    storage = ObjectImages(on(folder, syncs))
    await storage.put_image(image(storage), b"x")  # all folders are new
    syncs.singly.clear()
    syncs.at_once = 0
    stored = image(storage)
    await storage.put_image(stored, b"x")
    assert syncs.at_once == 0
    folders = {path for path in syncs.singly if path.is_dir()}
    assert folders == {
        folder / "index",
        (folder / stored.originalKey).parent,
        *(folder / "acme-corp" / "metadata").glob("*/*"),
    }
    assert sorted(syncs.singly.values()) == [1] * 6


async def test_new_folders_are_synced_up_to_the_top(folder: Path) -> None:
    syncs = Syncs(has_syncfs=False)
    syncs.let_go.set()
    blobs = on(folder, syncs)
    await blobs.put(Write("a/b/c/one", b"x"), action="try")
    assert {folder / "a" / "b" / "c", folder / "a" / "b", folder / "a", folder} < set(syncs.singly)
    assert set(folder.parents) < set(syncs.singly)

    for path in (folder / "a" / "b" / "c", folder / "a" / "b", folder / "a"):
        if path.name == "c":
            (path / "one").unlink()
        path.rmdir()
    await blobs.prune("a", action="try")
    syncs.singly.clear()
    await blobs.put(Write("a/b/c/one", b"x"), action="try")
    assert {folder / "a" / "b", folder / "a", folder} < set(syncs.singly), "they are new again"


async def test_what_cannot_be_synced_fails_alone_and_leaves_nothing(folder: Path) -> None:
    syncs = Syncs(has_syncfs=False)
    blobs = on(folder, syncs)
    syncs.broken = {"bad": errno.EIO, "full": errno.ENOSPC}
    writes = [
        asyncio.create_task(blobs.put(Write(f"a/{name}", b"x"), action="try"))
        for name in ("good", "bad", "full", "other")
    ]
    await asyncio.sleep(0)
    syncs.let_go.set()
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(each) for each in answers] == [
        type(None),
        StorageUnavailable,
        StorageFull,
        type(None),
    ]
    assert names(folder) == ["good", "other"]


async def test_off_syncs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise AssertionError("it was synced")

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(disk_sync, "_syncfs", refuse)
    storage = ObjectImages(open_blobs(Settings(data_dir=tmp_path, sync=False)))
    stored = image(storage)
    await storage.put_image(stored, b"x")
    await storage.delete_metadata(tenant=stored.tenantId, image_id=stored.imageId)
    assert names(tmp_path) == [stored.originalKey.rpartition("/")[2]]


def test_files_and_folders_are_synced_for_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file := tmp_path / "file").write_bytes(b"x")
    sync_path(file)
    sync_path(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_path(tmp_path / "gone")
    assert sync_file_systems([file, tmp_path, tmp_path / "gone"]) == (disk_sync._syncfs is not None)
    monkeypatch.setattr(disk_sync, "_syncfs", lambda _: -1)
    assert not sync_file_systems([file])

    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    sync_path(tmp_path)  # some file systems sync no folder
    with pytest.raises(OSError, match="Invalid"):
        sync_path(file)


async def test_a_write_that_is_cancelled_before_its_turn_does_nothing(folder: Path) -> None:
    syncs = Syncs(has_syncfs=False)
    blobs = on(folder, syncs)
    first = asyncio.create_task(blobs.put(Write("a/one", b"x"), action="try"))
    await asyncio.to_thread(syncs.reached.wait)
    second = asyncio.create_task(blobs.put(Write("a/two", b"x"), action="try"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({second})
    syncs.let_go.set()
    await first
    assert names(folder) == ["one"]


def test_a_step_may_fail_in_any_way() -> None:
    def steps() -> Steps[None]:
        yield ()
        raise ValueError("a bug")

    group = GroupSync()
    with pytest.raises(ValueError, match="a bug"):
        group.submit(steps()).result(10)
    assert group.submit(iter_of(7)).result(10) == 7


def iter_of(result: int) -> Steps[int]:
    yield ()
    return result
