"""Files in a local folder: whole or not there, and every fault in this system's words."""

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from obstore.store import LocalStore

from deeplens_streams.config import Settings
from deeplens_streams.errors import StorageFull, StorageUnavailable
from deeplens_streams.storage import open_blobs
from deeplens_streams.storage.blobs import files
from deeplens_streams.storage.blobs.files import NewFile, new_file, put_file
from deeplens_streams.storage.blobs.group_sync import Steps
from deeplens_streams.storage.blobs.local import LocalBlobs
from deeplens_streams.storage.blobs.store import Blobs, Write
from deeplens_streams.storage.images import ObjectImages
from deeplens_streams.storage.object_keys import InvalidObjectKey
from tests.support.stored_images import image


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    made = open_blobs(Settings(data_dir=tmp_path))
    assert isinstance(made, LocalBlobs)
    return made


@pytest.fixture
def storage(blobs: LocalBlobs) -> ObjectImages:
    return ObjectImages(blobs)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_put_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "some" / "folder" / "file"
    for data in (b"one", b"", bytes(3_000_000), b"two"):
        put_file(path, data)
        assert path.read_bytes() == data
        assert names(tmp_path) == ["file"]
    path.chmod(0o600)
    put_file(path, b"as the umask says")
    (other := tmp_path / "other").touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_a_file_is_moved_with_its_folder_made(tmp_path: Path) -> None:
    source, path = tmp_path / "source", tmp_path / "some" / "folder" / "file"
    source.write_bytes(b"content")
    inode = source.stat().st_ino
    new_file(path, source).put()
    assert path.stat().st_ino == inode
    assert names(tmp_path) == ["file"]


def test_a_moved_file_that_is_not_wanted_goes_back(tmp_path: Path) -> None:
    source, path = tmp_path / "source", tmp_path / "folder" / "file"
    source.write_bytes(b"content")
    new = new_file(path, source)
    assert not source.exists()
    new.drop()
    new.drop()
    assert source.read_bytes() == b"content"
    assert names(tmp_path) == ["source"]


def test_a_file_of_another_file_system_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, path = tmp_path / "source", tmp_path / "some" / "folder" / "file"
    source.write_bytes(os.urandom(3_000_000))
    rename = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if self == source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    new_file(path, source).put()
    assert path.read_bytes() == source.read_bytes()
    assert names(tmp_path) == ["file", "source"]


def _break(error: Exception) -> Callable[..., Any]:
    def broken(*_: object) -> None:
        raise error

    return broken


def test_what_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    put_file(path, b"old")
    monkeypatch.setattr(files, "write_all", _break(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        put_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    contents = [bytes([number]) * 100_000 for number in range(20)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda data: put_file(path, data), contents))
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["file"]


def test_a_killed_process_leaves_nothing_half(tmp_path: Path, blobs: LocalBlobs) -> None:
    """Killed at whatever moment: what has an object's name has all of its bytes."""
    code = (
        "import sys; from pathlib import Path\n"
        "from deeplens_streams.storage.blobs.files import put_file\n"
        "for number in range(10**9):"
        " put_file(Path(sys.argv[1]) / f'{number % 5}', bytes([number % 256]) * 2_000_000)"
    )
    folder = tmp_path / "images" / "acme-corp" / "thumbnail"
    for wait in (0.0, 0.003, 0.007, 0.011):
        with subprocess.Popen([sys.executable, "-c", code, folder]) as writer:
            while not (folder.exists() and len(list(folder.glob("?"))) == 5):
                time.sleep(0.01)
            time.sleep(wait)
            writer.kill()
        for path in folder.glob("?"):
            data = path.read_bytes()
            assert data == data[:1] * 2_000_000
            path.unlink()
    listing = asyncio.run(blobs.children("acme-corp/thumbnail", action="look"))
    assert listing == []


async def test_what_a_killed_write_left_is_found_and_removed(
    tmp_path: Path, storage: ObjectImages
) -> None:
    """Half of a picture, under a name that no listing shows."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from deeplens_streams.storage.blobs import files\n"
        "def cut(file, data): file.write(data[: len(data) // 2]); os.kill(os.getpid(), 9)\n"
        "files.write_all = cut\n"
        "files.put_file(Path(sys.argv[1]), bytes(400_000))"
    )
    key = image(storage).originalKey
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path / "images" / key)
    )
    assert await killed.wait() == -9
    assert [each async for each in storage.walk_files(tenant="acme-corp")] == []
    ((left, at),) = [each async for each in storage.walk_unfinished(tenant="acme-corp")]
    assert left.startswith(f"{key}#")
    assert datetime.now(UTC) - at < timedelta(minutes=1)
    assert await storage.tenants() == ["acme-corp"]
    assert [each async for each in storage.walk_keys(tenant="acme-corp")] == [left]
    with pytest.raises(InvalidObjectKey):
        await storage.remove_listed(tenant="acme", key=left)
    await storage.remove_listed(tenant="acme-corp", key=left)
    await storage.remove_listed(tenant="acme-corp", key=left)
    assert names(tmp_path / "images") == []
    assert await storage.tenants() == []


async def test_no_room_is_told_from_other_faults(
    storage: ObjectImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = image(storage)
    for number, expected in (
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageUnavailable),
        (errno.EACCES, StorageUnavailable),
    ):
        monkeypatch.setattr(files, "write_all", _break(OSError(number, "what the system says")))
        for write in (
            storage.put_image(stored, b"bytes"),
            storage.put_thumbnail(tenant="acme-corp", key=stored.thumbnailKey, data=b"x"),
            storage.ping(),
        ):
            with pytest.raises(expected):
                await write


async def test_a_large_object_is_read_off_the_loop(
    storage: ObjectImages, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_threads = []
    run = blobs._run

    async def watched(work: Callable[[], Any]) -> Any:
        in_threads.append(await run(work))
        return in_threads[-1]

    for size in (262_144, 262_145):
        stored, data = image(storage), os.urandom(size)
        await storage.put_image(stored, data)
        with monkeypatch.context() as patch:
            patch.setattr(blobs, "_run", watched)
            assert await storage.get(tenant="acme-corp", key=stored.originalKey) == data
    assert [len(data) for data in in_threads] == [262_145]


async def test_nothing_is_written_behind_a_cancelled_upload(
    storage: ObjectImages, blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = image(storage)
    reached, release = Event(), Event()
    make = blobs._new

    def slow(one: Write) -> NewFile:
        if one.key.startswith("index/"):
            reached.set()
            release.wait()
        return make(one)

    monkeypatch.setattr(blobs, "_new", slow)
    upload = asyncio.create_task(storage.put_image(stored, b"bytes"))
    await asyncio.to_thread(reached.wait)
    for _ in range(2):  # impatience changes nothing
        upload.cancel()
        await asyncio.wait({upload}, timeout=0.01)
        assert not upload.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await upload
    # All three are there or will never be: removing them now removes the picture.
    await storage.delete_metadata(tenant="acme-corp", image_id=stored.imageId)
    await storage.delete_object(tenant="acme-corp", key=stored.originalKey)
    assert names(blobs._folder) == []


async def test_what_waits_for_a_thread_is_not_written_when_cancelled(
    storage: ObjectImages, blobs: LocalBlobs
) -> None:
    reached, release = Event(), Event()

    def busy_steps() -> Steps[None]:
        reached.set()
        release.wait()
        yield ()

    busy = [asyncio.create_task(blobs._do(busy_steps())) for _ in range(20)]
    await asyncio.to_thread(reached.wait)
    upload = asyncio.create_task(storage.put_image(image(storage), b"bytes"))
    await asyncio.sleep(0)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    release.set()
    await asyncio.gather(*busy)
    assert names(blobs._folder) == []


async def test_folders_of_obstore_and_ours_are_the_same(
    tmp_path: Path, storage: ObjectImages
) -> None:
    theirs = ObjectImages(Blobs(LocalStore(tmp_path / "images")))
    for writer, reader in ((theirs, storage), (storage, theirs)):
        stored, data = image(storage), os.urandom(1000)
        await writer.put_image(stored, data)
        await writer.put_thumbnail(tenant="acme-corp", key=stored.thumbnailKey, data=b"small")
        found = await reader.find(stored.imageId)
        assert found is not None
        assert found.to_wire() == stored.to_wire()
        assert await reader.get(tenant="acme-corp", key=stored.originalKey) == data
        assert await reader.get(tenant="acme-corp", key=stored.thumbnailKey) == b"small"
    page = await theirs.list_images(tenant="acme-corp", limit=5)
    assert len(page.images) == 2
