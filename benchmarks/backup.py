"""How fast a backup and a restore are: ``python -m benchmarks.backup [--images N] [--to URL]``.

Images of 100 kB with their metadata objects and claims, in a local folder; a copy of them to
another folder or to a URL; the same again with nothing new, read and compared, and back. It prints
objects a second and the seconds of the processor that it took.
"""

import asyncio
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import psutil

from deeplens_streams.backup.copying import Counts, Finding
from deeplens_streams.backup.restore import Way, restore
from deeplens_streams.backup.run import Wanted, back_up
from deeplens_streams.backup.verify import verify
from deeplens_streams.config import Settings
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.storage import Blobs, ObjectImages, blobs_at
from deeplens_streams.storage.duplicate_claims import DuplicateClaims
from models.events import PictureFacts, ProcessingOptions, wire_time
from models.images import StoredImage

_SIZE = 100_000
_AT_ONCE = 16
_NOON = datetime(2025, 3, 9, 12, 0, tzinfo=UTC)


@click.command()
@click.option("--images", default=5000, show_default=True)
@click.option("--to", help="Where the backup is to be. Default: another folder.")
def main(*, images: int, to: str | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(_run(folder, to or (folder / "there").as_uri(), images))


async def _run(folder: Path, there_url: str, count: int) -> None:
    here, there, again = (
        blobs_at(url, Settings())
        for url in ((folder / "here").as_uri(), there_url, (folder / "again").as_uri())
    )
    await _fill(here, count)
    wanted = Wanted(source="here")

    async def save(counts: Counts) -> None:
        await back_up(here, there, wanted, _tell, counts)

    async def read(counts: Counts) -> None:
        await verify(there, _tell, counts)

    async def bring_back(counts: Counts) -> None:
        await restore(there, again, Way(source="there"), _tell, counts)

    works: dict[str, Callable[[Counts], Awaitable[None]]] = {
        "backup": save,
        "backup, nothing new": save,
        "backup --verify": read,
        "restore": bring_back,
    }
    for name, work in works.items():
        await _measure(name, work)


async def _measure(name: str, work: Callable[[Counts], Awaitable[None]]) -> None:
    counts, process = Counts(), psutil.Process()
    began, busy = time.monotonic(), time.process_time()
    await work(counts)
    seconds = time.monotonic() - began
    objects = max(counts.looked, counts.copied)
    click.echo(
        f"{name:20} {objects:7} objects, {seconds:7.1f} s, {objects / seconds:7.0f} a second, "
        f"{time.process_time() - busy:6.1f} s of processor, "
        f"{process.memory_info().rss / 1e6:4.0f} MB"
    )


def _tell(finding: Finding) -> None:
    raise AssertionError(finding)


async def _fill(blobs: Blobs, count: int) -> None:
    images, claims = ObjectImages(blobs), DuplicateClaims(blobs)
    room = asyncio.Semaphore(_AT_ONCE)

    async def put(number: int) -> None:
        async with room:
            data = os.urandom(_SIZE)
            at = wire_time(_NOON + timedelta(milliseconds=25 * number))
            image = _image(images, at, data)
            await images.put_image(image, data, claim=claims.pending(image))

    await asyncio.gather(*(put(number) for number in range(count)))


def _image(images: ObjectImages, at: str, data: bytes) -> StoredImage:
    image_id = new_image_id()
    names = {"tenant": "acme", "image_id": image_id, "uploaded_at": at}
    return StoredImage(
        imageId=image_id,
        tenantId="acme",
        correlationId=str(uuid.uuid4()),
        fileName="a.jpg",
        originalKey=images.original_key(format="JPEG", **names),
        thumbnailKey=images.thumbnail_key(**names),
        fileSize=len(data),
        contentType="image/jpeg",
        checksumSha256=hashlib.sha256(data).hexdigest(),
        uploadedAt=at,
        metadata=PictureFacts(width=640, height=480, format="JPEG"),
        processingOptions=ProcessingOptions(models=["resnet50"]),
        tags={},
    )


if __name__ == "__main__":
    main()
