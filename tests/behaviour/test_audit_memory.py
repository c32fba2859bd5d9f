"""An audit takes as much memory for many images as for few."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

from deeplens_streams.audit.context import DamagedRow
from deeplens_streams.audit.report import PAGE
from deeplens_streams.audit.runner import Audit
from deeplens_streams.broker.topics import Message
from deeplens_streams.config import load_settings
from deeplens_streams.services import Services, services_over
from deeplens_streams.storage import open_blobs
from deeplens_streams.storage.object_keys import epoch_ms
from deeplens_streams.testing.features import MemoryFeatures
from models.deletion import PurgeStep, Tombstone
from models.events import PictureFacts, ProcessingOptions, utc_now
from models.images import StoredImage
from models.status import ImageRow
from tests.support.web_server import TENANT, row_of

FEW, MANY = 800, 6_400
AT = "2026-03-09T12:00:00.000Z"


class Table:
    """The status table of images of which every fourth is deleted; it holds no row."""

    read_up_to = datetime.now(UTC)

    def __init__(self, count: int) -> None:
        self.count = count

    def row(self, image_id: str) -> ImageRow:
        status = "deleted" if is_deleted(int(image_id[-12:], 16)) else "completed"
        return row_of(image_id, status, [], uploadedAt=AT)

    async def rows(self, image_ids: list[str]) -> dict[str, ImageRow]:
        return {each: self.row(each) for each in image_ids}

    async def all_rows(self) -> AsyncGenerator[list[ImageRow | DamagedRow]]:
        for start in range(0, self.count, PAGE):
            yield [self.row(name(number)) for number in range(start, start + PAGE)]

    async def publish(self, *messages: Message) -> None:
        raise AssertionError(messages)


def is_deleted(number: int) -> bool:
    return number % 4 == 0


def name(number: int) -> str:
    return f"img_00000000-0000-4000-8000-{number:012x}"


async def stored(count: int, tmp_path: Path) -> Services:
    """Return storage with so many images, all of one millisecond."""
    settings = load_settings(data_dir=tmp_path, storage_url="memory://", weights="untrained")
    blobs = open_blobs(settings)
    services = services_over(blobs, settings, model=MemoryFeatures().model)
    for start in range(0, count, PAGE):
        await asyncio.gather(*(_store(each, services) for each in range(start, start + PAGE)))
    return services


async def _store(number: int, services: Services) -> None:
    image_id, storage = name(number), services.storage
    image = StoredImage(
        imageId=image_id,
        tenantId=TENANT,
        correlationId=image_id[4:],
        fileName="a.jpg",
        originalKey=storage.original_key(
            tenant=TENANT, image_id=image_id, uploaded_at=AT, format="JPEG"
        ),
        thumbnailKey=storage.thumbnail_key(tenant=TENANT, image_id=image_id, uploaded_at=AT),
        fileSize=1,
        contentType="image/jpeg",
        checksumSha256=f"{number:064x}",
        uploadedAt=AT,
        metadata=PictureFacts(width=640, height=480, format="JPEG"),
        processingOptions=ProcessingOptions(models=["resnet50"]),
        tags={},
    )
    if not is_deleted(number):
        await storage.put_image(image, b"x", claim=services.claims.pending(image))
        return
    tombstone = Tombstone(
        imageId=image_id,
        tenantId=TENANT,
        correlationId=image_id[4:],
        uploadedAt=AT,
        requestedAt=AT,
        originalKey=image.originalKey,
        thumbnailKey=image.thumbnailKey,
        checksumSha256=image.checksumSha256,
        models=[],
        steps={step.value: AT for step in PurgeStep},
        completedAt=utc_now(),
    )
    await services.tombstones.put(tombstone)
    await services.inventory.point(image_id, tenant=TENANT, ms=epoch_ms(AT))


async def peak(count: int, tmp_path: Path) -> int:
    """Return what an audit of so many images has in memory at the most, in bytes."""
    services, table = await stored(count, tmp_path), Table(count)
    audit = Audit(services, table, table.all_rows, table.publish, table, repair=False)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        lines = [line async for line in audit.run([TENANT], is_all=True)]
        _, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [line["type"] for line in lines] == ["tenant", "total"], lines[:3]
    counts = {key: lines[-1][key] for key in ("accepted", "completed", "deleted", "balanced")}
    assert counts == {
        "accepted": count,
        "completed": count * 3 // 4,
        "deleted": count // 4,
        "balanced": True,
    }
    return highest - before


async def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    few, many = await peak(FEW, tmp_path / "few"), await peak(MANY, tmp_path / "many")
    assert many < 1.6 * few, (few, many)
