"""Deleted images are forgotten when no event can speak of them any more, whoever is killed."""

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from obstore.store import LocalStore

from agents import status_tracking
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import STATUS
from deeplens_streams.config import load_settings
from deeplens_streams.deletion import ageing
from deeplens_streams.deletion import image as deletion
from deeplens_streams.deletion.ageing import Ageing, Timings
from deeplens_streams.errors import BrokerUnavailable, ConfigurationError
from deeplens_streams.metrics import AGED
from deeplens_streams.pipeline.progress import progress, report
from deeplens_streams.services import Services
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.local import LocalBlobs
from deeplens_streams.storage.tombstones import Tombstones
from models.deletion import Tombstone
from models.events import wire_time
from models.images import StoredImage
from models.status import Ending, ImageProgress, ImageRow, Step, StepStatus
from tests.support.killed_systems import PICTURE, TENANT, Fuse, Killed, System
from tests.support.status_tracking import process
from tests.support.stored_images import image as made_image
from tests.support.web_server import until

NOW = datetime.now(UTC)
AGO = timedelta(days=91)


def made(fuse: Fuse) -> Services:
    return replace(System(fuse).services, settings=load_settings(weights="untrained"))


@pytest.fixture
def services() -> Services:
    return made(Fuse())


async def deleted(
    services: Services, *, uploaded: timedelta, purged: timedelta | None
) -> Tombstone:
    """Return the tombstone of an image of `uploaded` ago, all of which went `purged` ago."""
    image = made_image(services.storage, at=NOW - uploaded)
    await services.storage.put_image(image, PICTURE)
    tombstone = await deletion.bury(image, services)
    if purged is not None:
        await deletion.purge(tombstone, services)
        tombstone.completedAt = wire_time(NOW - purged)
        await services.tombstones.put(tombstone)
    return tombstone


class Kafka:
    """Keeps the status table's rows, as far as ageing has to do with them."""

    def __init__(self, services: Services) -> None:
        self.services, self.rows = services, dict[bytes, ImageRow]()
        self.sent: list[Message] = []
        self.is_away = False

    async def publish(self, *messages: Message) -> None:
        if self.is_away:
            raise BrokerUnavailable
        for message in messages:
            assert isinstance(message.event, ImageProgress)
            self.sent += await process(message.event, self.rows, self.services)

    async def told(self, tombstone: Tombstone) -> None:
        """Have a row say that its image is deleted."""
        await self.publish(deletion.ended(tombstone))
        assert self.rows[tombstone.imageId.encode()].status == "deleted"


def aged(kafka: Kafka, *, is_turn: bool = True) -> Ageing:
    timings = Timings(first=0.0, rest=0.0)
    return Ageing(kafka.services, kafka.publish, lambda: is_turn, timings)


async def left(services: Services) -> set[str]:
    survey = services.tombstones.survey(tenant=TENANT)
    return {image_id async for image_id, _ in survey}


async def pointers_of(services: Services) -> set[str]:
    """Return the images to which an ID alone leads."""
    keys = services.inventory.keys(object_keys.POINTERS)
    return {object_keys.read_image_id(key) async for key in keys}


async def test_what_was_purged_long_ago_goes_with_its_row_and_its_pointer(
    services: Services,
) -> None:
    kafka = Kafka(services)
    old = await deleted(services, uploaded=2 * AGO, purged=AGO)
    young = await deleted(services, uploaded=2 * AGO, purged=timedelta(days=89))
    unfinished = await deleted(services, uploaded=2 * AGO, purged=None)
    new = await deleted(services, uploaded=timedelta(days=1), purged=AGO)
    for each in (old, young):
        await kafka.told(each)
    alive = made_image(services.storage, at=NOW - 2 * AGO)
    await services.storage.put_image(alive, PICTURE)
    assert await aged(kafka, is_turn=False).look() == 0
    assert await aged(kafka).look() == 1
    kept = {each.imageId for each in (young, unfinished, new)}
    assert await left(services) == kept
    assert set(kafka.rows) == {young.imageId.encode()}
    assert kafka.sent[-1].topic is STATUS
    assert kafka.sent[-1].is_tombstone
    assert await services.tombstones.find(old.imageId) is None
    pointers = await pointers_of(services)
    assert pointers == {*kept, alive.imageId}
    assert await aged(kafka).look() == 0


async def test_an_image_that_was_brought_back_is_not_forgotten(services: Services) -> None:
    kafka = Kafka(services)
    image = made_image(services.storage, at=NOW - 2 * AGO)
    await services.storage.put_image(image, PICTURE)
    tombstone = await deletion.bury(image, services)
    await deletion.purge(tombstone, services)
    tombstone.completedAt = wire_time(NOW - AGO)
    await services.tombstones.put(tombstone)
    await services.storage.put_image(image, PICTURE)
    assert await aged(kafka).look() == 0
    assert await services.storage.find(image.imageId) == image


@pytest.mark.parametrize("number", range(1, 8))
async def test_a_crash_behind_each_write_leaves_what_is_forgotten_the_next_time(
    number: int,
) -> None:
    fuse = Fuse()
    services = made(fuse)
    kafka = Kafka(services)
    for _ in range(3):
        await kafka.told(await deleted(services, uploaded=2 * AGO, purged=AGO))
    fuse.at = fuse.writes + number
    try:
        await aged(kafka).look()
    except Killed:
        fuse.at = None
        # Whatever is left is found by a tombstone.
        assert len(await left(services)) >= len(kafka.rows)
        pointers = await pointers_of(services)
        assert pointers <= await left(services)
        await aged(kafka).look()
    else:
        assert number == 7, "two writes an image"
    assert (await left(services), kafka.rows) == (set(), {})
    assert await pointers_of(services) == set()


async def test_nothing_goes_while_kafka_is_away(services: Services) -> None:
    kafka = Kafka(services)
    old = await deleted(services, uploaded=2 * AGO, purged=AGO)
    kafka.is_away = True
    with pytest.raises(BrokerUnavailable):
        await aged(kafka).look()
    assert await left(services) == {old.imageId}


async def test_many_go_in_batches(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ageing, "BATCH", 2)
    kafka = Kafka(services)
    for _ in range(5):
        await deleted(services, uploaded=2 * AGO, purged=AGO)
    assert await aged(kafka).look() == 5
    assert await left(services) == set()


def late(image: StoredImage | Tombstone) -> ImageProgress:
    """Return a report that comes when all of its image is forgotten."""
    origin = deletion.ended(image).event if isinstance(image, Tombstone) else None
    assert isinstance(origin, ImageProgress)
    message = progress(origin, [report(Step.VECTOR_INDEXING, StepStatus.COMPLETED)])
    assert isinstance(message.event, ImageProgress)
    return message.event


async def test_a_late_event_of_a_forgotten_image_makes_no_row(services: Services) -> None:
    kafka = Kafka(services)
    old = await deleted(services, uploaded=2 * AGO, purged=AGO)
    await kafka.told(old)
    await aged(kafka).look()
    for event in (late(old), deletion.ended(old).event):
        assert isinstance(event, ImageProgress)
        assert await status_tracking.process(event, kafka.rows, services, Known()) == []
    assert kafka.rows == {}


async def test_an_old_image_without_a_row_gets_one_again(services: Services) -> None:
    """As an audit has it processed when Kafka was lost."""
    image = made_image(services.storage, at=NOW - 2 * AGO)
    await services.storage.put_image(image, PICTURE)
    rows = dict[bytes, ImageRow]()
    origin = deletion.ended(_tombstone(image)).event
    steps = [report(Step.IMAGE_PROCESSING, StepStatus.PENDING)]
    event = progress(origin, steps, image).event
    assert isinstance(event, ImageProgress)
    assert event.data.ending != Ending.DELETED
    assert await status_tracking.process(event, rows, services, Known()) != []
    assert set(rows) == {image.imageId.encode()}


class Known:
    """The registry, where every tenant is there."""

    def has(self, _tenant: str, _since: str | None) -> bool:
        return True


def _tombstone(image: StoredImage) -> Tombstone:
    return Tombstone(
        imageId=image.imageId,
        tenantId=image.tenantId,
        correlationId=image.correlationId,
        uploadedAt=image.uploadedAt,
        requestedAt=image.uploadedAt,
        originalKey=image.originalKey,
        thumbnailKey=image.thumbnailKey,
        checksumSha256=image.checksumSha256,
        models=[],
        steps={},
    )


def test_what_killed_processes_left_beside_tenants_goes(tmp_path: Path) -> None:
    tombstones = Tombstones(LocalBlobs(LocalStore(tmp_path)))
    old = (NOW - timedelta(days=2)).timestamp()
    for folder in (object_keys.DELETING, object_keys.REGISTRY, object_keys.PURGES):
        (tmp_path / folder).mkdir()
        for name in ("old.json#1", "new.json#2", "whole.json"):
            (tmp_path / folder / name).write_bytes(b"{}")
        os.utime(tmp_path / folder / "old.json#1", (old, old))
        os.utime(tmp_path / folder / "whole.json", (old, old))
    asyncio.run(tombstones.remove_unfinished(before=NOW - timedelta(days=1)))
    found = sorted(each.name for each in tmp_path.rglob("*.json*"))
    assert found == 3 * ["new.json#2"] + 3 * ["whole.json"]


async def test_a_process_looks_by_itself(services: Services) -> None:
    kafka = Kafka(services)
    await deleted(services, uploaded=2 * AGO, purged=AGO)
    before = AGED._value.get()
    async with aged(kafka):
        await until(lambda: AGED._value.get() > before)
    assert await left(services) == set()


@pytest.mark.parametrize(
    "name", ["retention_days", "vector_retention_days", "failed_retention_days"]
)
def test_tombstones_outlive_every_event(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"DEEPLENS_TOMBSTONE_DAYS.*{name.upper()}"):
        load_settings(weights="untrained", **{name: 90})
    days = {name: 90, "tombstone_days": 91}
    assert load_settings(weights="untrained", **days).tombstone_days == 91
