"""Where an upload's bytes wait: in memory or in a file, and nothing is left of them."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

import pytest

from deeplens_streams.errors import StorageFull, StorageUnavailable, UndecodableImage
from deeplens_streams.ingest import spool as spooling
from deeplens_streams.ingest.spool import BLOCK_BYTES, Spool, SpooledFile
from deeplens_streams.storage.blobs.files import write_all

SMALL, LARGE = BLOCK_BYTES - 1, 3 * BLOCK_BYTES + 7


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    made = Spool(tmp_path / "spool")
    await made.prepare()
    yield made
    made.close()


def left(spool: Spool) -> list[str]:
    return os.listdir(spool._folder)  # noqa: PTH208 -- an async test may not use a Path for it


def read(content: BinaryIO) -> bytes:
    return content.read()


async def fill(file: SpooledFile, data: bytes, piece: int = 100_000) -> None:
    for start in range(0, len(data), piece):
        file.take(memoryview(data)[start : start + piece])
        await file.settle()


@pytest.mark.parametrize("size", [0, 1, SMALL, BLOCK_BYTES, LARGE])
async def test_everything_is_hashed_and_kept(spool: Spool, size: int) -> None:
    data = os.urandom(size)
    async with spool.open() as file:
        await fill(file, data)
        checksum, seen = await file.finish(read)
        assert checksum == hashlib.sha256(data).hexdigest()
        assert seen == data
        assert file.size == size
        assert isinstance(file.content, bytes) == (size < BLOCK_BYTES)
        assert left(spool) == ([] if size < BLOCK_BYTES else [Path(str(file.content)).name])
    assert left(spool) == []


async def test_a_file_that_was_moved_costs_no_thread_at_the_end(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spool.open() as file:
        await fill(file, bytes(LARGE))
        await file.finish(read)
        assert isinstance(file.content, Path)
        file.content.replace(tmp_path / "original")
        monkeypatch.setattr(spool, "run", None)
    assert left(spool) == []


async def test_tiny_pieces_do_not_gather(spool: Spool) -> None:
    async with spool.open() as file:
        await fill(file, bytes(5000), piece=1)
        assert len(file._pending) < 1024
        assert (await file.finish(read))[1] == bytes(5000)


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_a_refused_picture_leaves_nothing(spool: Spool, size: int) -> None:
    def refuse(_content: BinaryIO) -> None:
        raise UndecodableImage

    async def request() -> None:
        async with spool.open() as file:
            await fill(file, bytes(size))
            await file.finish(refuse)

    with pytest.raises(UndecodableImage):
        await request()
    assert left(spool) == []


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_an_upload_that_is_not_finished_leaves_nothing(spool: Spool, size: int) -> None:
    async with spool.open() as file:
        await fill(file, bytes(size))
    assert left(spool) == []


@pytest.mark.parametrize("step", ["the first block", "the end"])
async def test_a_request_cancelled_while_a_thread_writes_leaves_nothing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    reached, release = Event(), Event()
    write = write_all

    def slow(*given: Any) -> None:
        if step == "the first block" or ended:
            reached.set()
            release.wait()
        write(*given)

    ended = False

    async def request() -> None:
        nonlocal ended
        async with spool.open() as file:
            await fill(file, bytes(LARGE))
            ended = True
            await file.finish(read)

    monkeypatch.setattr(spooling, "write_all", slow)
    task = asyncio.create_task(request())
    await asyncio.to_thread(reached.wait)
    task.cancel()
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left(spool) == []


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, StorageFull), (errno.EIO, StorageUnavailable)]
)
async def test_a_disk_that_fails_is_told(
    spool: Spool,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    expected: type[Exception],
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "/secret")

    monkeypatch.setattr(spooling, "write_all", fail)
    with pytest.raises(expected) as caught:
        async with spool.open() as file:
            await fill(file, bytes(LARGE))
    assert "secret" not in str(caught.value)
    assert left(spool) == []


async def test_no_two_uploads_meet(spool: Spool) -> None:
    async def one(number: int) -> bool:
        data = bytes([number]) * LARGE
        async with spool.open() as file:
            await fill(file, data)
            return await file.finish(read) == (hashlib.sha256(data).hexdigest(), data)

    assert all(await asyncio.gather(*(one(number) for number in range(20))))
    assert left(spool) == []
