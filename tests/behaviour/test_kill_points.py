"""A crash behind each durable write, one after the other: the ledger is the same.

The whole pipeline runs here on parts in memory, with a log of messages that is committed as
Kafka's is: what was not acknowledged comes again. A crash loses everything but what was written.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from obstore.store import MemoryStore

from agents import (
    dead_letters,
    feature_extraction,
    image_processing,
    purging,
    status_tracking,
    tenants,
)
from agents import vector_indexing as indexing
from deeplens_streams import codec, deletion
from deeplens_streams.breakers import Breakers
from deeplens_streams.config import load_settings
from deeplens_streams.errors import ImageNotFound
from deeplens_streams.features.memory import MemoryFeatures
from deeplens_streams.replay import Replay
from deeplens_streams.reports import teller
from deeplens_streams.services import Services
from deeplens_streams.stage import Stage
from deeplens_streams.storage import Blobs, ObjectImages
from deeplens_streams.storage.admin_log import AdminLog
from deeplens_streams.storage.blobs import Write
from deeplens_streams.storage.claims import DuplicateClaims
from deeplens_streams.storage.letters import LetterShelf
from deeplens_streams.storage.tombstones import Tombstones
from deeplens_streams.topics import (
    COMPLETED,
    DELETED,
    EXTRACTION,
    FAILED,
    INDEXING,
    PROGRESS,
    STATUS,
    TENANT_CHANGES,
    TENANTS,
    UPLOADED,
    Message,
    Topic,
)
from deeplens_streams.vectors.memory import MemoryVectors
from deeplens_streams.web.context import WebContext
from deeplens_streams.web.intake import Intake
from deeplens_streams.web.quotas import Quotas
from deeplens_streams.web.registry import Registry
from models.deletion import ImageDeleted, ImageDeletedData, TenantPurge
from models.events import new_event_id, utc_now
from models.images import StoredImage
from models.status import ImageRow, Step
from models.tenants import Usage
from tests.behaviour.test_storage import image as made_image
from tests.photographs import as_jpeg, photograph
from tests.unit.test_stage import incoming
from tests.web_server import Feed, Pressure, Rows, Tables

TENANT = "acme-corp"
PICTURE = as_jpeg(photograph("coffee").data, pixels=20_000)
BROKEN = PICTURE[: len(PICTURE) // 2]


class Killed(BaseException):
    """The process is no more."""


class Fuse:
    """Kills behind the write of a number; counts all of them."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.writes = at, 0

    def written(self) -> None:
        self.writes += 1
        if self.writes == self.at:
            raise Killed


class FusedBlobs(Blobs):
    fuse: Fuse

    async def _put(self, write: Write) -> None:
        await super()._put(write)
        self.fuse.written()

    async def swap(self, write: Write, *, old: bytes, action: str) -> bool:
        swapped = await super().swap(write, old=old, action=action)
        self.fuse.written()
        return swapped

    async def delete(self, key: str, *, action: str) -> None:
        await super().delete(key, action=action)
        self.fuse.written()


class FusedVectors(MemoryVectors):
    fuse: Fuse

    async def upsert(self, *args: Any, **kwargs: Any) -> None:
        await super().upsert(*args, **kwargs)
        self.fuse.written()

    async def delete(self, *args: Any, **kwargs: Any) -> None:
        await super().delete(*args, **kwargs)
        self.fuse.written()


class Table(dict[bytes, Any]):
    fuse: Fuse

    def __setitem__(self, key: bytes, value: Any) -> None:
        super().__setitem__(key, value)
        self.fuse.written()

    def __delitem__(self, key: bytes) -> None:
        super().__delitem__(key)
        self.fuse.written()


class System:
    """Everything durable, and a process over it that can be killed and started again."""

    def __init__(self, fuse: Fuse) -> None:
        self.blobs, self.vectors, self.table = FusedBlobs(MemoryStore()), FusedVectors(), Table()
        self.tenants = Table()
        for part in (self.blobs, self.vectors, self.table, self.tenants):
            part.fuse = fuse  # type: ignore[attr-defined] # each has one
        self.fuse = fuse
        self.log: dict[Topic, deque[bytes]] = {}
        #: By topic: messages that were acknowledged, and so the offset of the next one.
        self.read: dict[Topic, int] = {}
        self.completed: list[str] = []
        features = MemoryFeatures()
        self.services = Services(
            settings=load_settings(weights="untrained"),
            storage=ObjectImages(self.blobs),
            claims=DuplicateClaims(self.blobs),
            letters=LetterShelf(self.blobs),
            tombstones=Tombstones(self.blobs),
            actions=AdminLog(self.blobs),
            model=features.model,
            features=features,
            vectors=self.vectors,
            breakers=Breakers(),
        )

    # What stands for Kafka and the status table -------------------------------------------

    async def send(self, *messages: Message) -> None:
        for message in messages:
            value = codec.encode(message.event)
            self.log.setdefault(message.topic, deque()).append(value)
            if message.topic is COMPLETED:
                self.completed.append(message.event.eventId)
            self.fuse.written()

    async def row(self, image_id: str) -> ImageRow | None:
        return self.table.get(image_id.encode())

    async def rows(self, image_ids: Any) -> dict[str, ImageRow]:
        return {each: row for each in image_ids if (row := await self.row(each))}

    def stages(self) -> dict[Topic, Stage[Any]]:
        services = self.services

        def stage(name: str, module: Any, record: str, work: Any, *tell: Any) -> Stage[Any]:
            record_type = getattr(module, record)
            return Stage(name, record_type, work, self, services.breakers, *tell)

        def of(module: Any, record: str, step: Step, *, by_model: bool) -> Stage[Any]:
            async def work(event: Any) -> list[Message]:
                found: list[Message] = await module.process(event, services)
                return found

            return stage(step.value, module, record, work, teller(step, by_model=by_model))

        async def track(event: Any) -> list[Message]:
            return await status_tracking.process(event, self.table, services)

        async def keep(event: Any) -> list[Message]:
            return await dead_letters.process(event, services)

        async def change(event: Any) -> list[Message]:
            return await tenants.process(event, self.tenants)

        async def purge(event: Any) -> list[Message]:
            return await purging.process(event, services, self)

        return {
            UPLOADED: of(image_processing, "ImageUploaded", Step.IMAGE_PROCESSING, by_model=False),
            EXTRACTION: of(
                feature_extraction,
                "FeatureExtractionRequested",
                Step.FEATURE_EXTRACTION,
                by_model=True,
            ),
            INDEXING: of(indexing, "VectorIndexingRequested", Step.VECTOR_INDEXING, by_model=True),
            PROGRESS: stage("status_tracking", status_tracking, "ImageProgress", track),
            FAILED: stage("dead_letters", dead_letters, "ProcessingFailed", keep),
            DELETED: stage("purging", purging, "ImageDeleted", purge),
            TENANT_CHANGES: stage("tenants", tenants, "TenantChange", change),
        }

    async def settle(self) -> None:
        """Work until nothing is left to do; a killed process is started again."""
        while any(self.log.get(topic) for topic in self.stages()):
            try:
                for topic, stage in self.stages().items():
                    waiting = self.log.get(topic, deque())
                    while waiting:
                        offset = self.read.get(topic, 0)
                        await stage.run(_One(waiting[0], offset))
                        waiting.popleft()  # acknowledged
                        self.read[topic] = offset + 1
            except Killed:
                continue
        for topic in (STATUS, TENANTS):
            self.log.pop(topic, None)

    # What clients do ----------------------------------------------------------------------

    async def upload(self, picture: bytes) -> StoredImage | None:
        """Upload; None if there was no answer."""
        context = WebContext(
            services=self.services,
            publish=self.send,
            rows=self,  # type: ignore[arg-type] # what an upload uses of it
            feed=Feed(),
            tables=Tables(Rows()),
            backlog=Pressure(),
            stream_checks=_no_checks,
            registry=(registry := Registry(self.send)),
            quotas=Quotas(self.services.settings, registry),
        )
        image = made_image(self.services.storage)
        image.processingOptions.models = [self.services.model.name]
        try:
            accepted = await Intake(context).accept(image, picture)
            await asyncio.sleep(0)
        except Killed:
            return None
        return accepted

    async def delete(self, image_id: str) -> None:
        """Delete, again until there is an answer."""
        while True:
            try:
                found = await self.services.storage.find(image_id)
                tombstone = (
                    await deletion.begin(found, self.services)
                    if found is not None
                    else await self.services.tombstones.find(image_id)
                )
                assert tombstone is not None
                await self.send(*deletion.messages(tombstone))
            except Killed:
                continue
            return

    async def delete_tenant(self) -> None:
        """Have the tenant deleted, again until there is an answer."""
        event = ImageDeleted(
            eventType=ImageDeleted.EVENT_TYPE,
            eventId=new_event_id(),
            timestamp=utc_now(),
            tenantId=TENANT,
            correlationId="c",
            data=ImageDeletedData(),
        )
        while True:
            try:
                purge = TenantPurge(tenantId=TENANT, requestedAt=utc_now())
                await self.services.tombstones.put_purge(purge)
                await self.send(Message(DELETED, event))
            except Killed:
                continue
            return

    async def usage(self, tenant: str) -> Usage | None:
        row = self.tenants.get(tenant.encode())
        return row and row.usage

    async def retry_all(self) -> None:
        while True:
            try:
                async for letter in self.services.letters.walk(tenant=TENANT):
                    if letter.state == "waiting":
                        await Replay(self.services, self, self.send).retry(letter, force=True)
            except (Killed, ImageNotFound):
                continue
            return


class _One:
    """A stream of one message."""

    enable_acks = True

    def __init__(self, value: bytes, offset: int) -> None:
        self._value, self._offset = value, offset
        self.channel = type("Channel", (), {"empty": staticmethod(lambda: True)})

    async def events(self) -> Any:
        message = incoming(self._value)
        message.message.offset = self._offset
        message.ack = lambda: None
        yield message


async def _no_checks() -> dict[str, Any]:
    return {}


async def ledger(system: System, image: StoredImage) -> dict[str, Any]:
    """Return everything that there is of an image, but times."""
    row = await system.row(image.imageId)
    model = system.services.model.name
    services, tenant = system.services, image.tenantId
    tombstone = await services.tombstones.find(image.imageId)
    vector = await system.vectors.get_vector(tenant=tenant, model=model, image_id=image.imageId)
    claim = await services.claims.find(tenant=tenant, checksum=image.checksumSha256)
    return {
        "row": row and (row.status, row.generation),
        "steps": row and sorted((step.step, step.status) for step in row.steps),
        "vector": vector is not None,
        "points": await system.vectors.count(tenant=tenant, model=model),
        "metadata": await services.storage.find(image.imageId) is not None,
        "original": await services.storage.size(tenant=tenant, key=image.originalKey) is not None,
        "thumbnail": await services.storage.size(tenant=tenant, key=image.thumbnailKey) is not None,
        "claim": claim is not None and claim.image_id == image.imageId,
        "purged": tombstone is not None and tombstone.completedAt is not None,
        "letters": [letter.state async for letter in services.letters.walk(tenant=tenant)],
        "completed": len(set(system.completed)),
        "usage": usage.to_wire() if (usage := await system.usage(tenant)) else None,
    }


async def completes(system: System) -> StoredImage | None:
    image = await system.upload(PICTURE)
    await system.settle()
    return image


async def fails_and_is_retried(system: System) -> StoredImage | None:
    image = await system.upload(BROKEN)
    await system.settle()
    await system.retry_all()
    await system.settle()
    return image


async def is_deleted(system: System) -> StoredImage | None:
    image = await completes(system)
    if image is not None:
        await system.delete(image.imageId)
        await system.settle()
    return image


async def is_deleted_on_its_way(system: System) -> StoredImage | None:
    image = await system.upload(PICTURE)
    if image is not None:
        await system.delete(image.imageId)
    await system.settle()
    return image


async def goes_with_its_tenant(system: System) -> StoredImage | None:
    image = await completes(system)
    if image is not None:
        await system.delete_tenant()
        await system.settle()
    return image


Story = Callable[[System], Awaitable[StoredImage | None]]


@pytest.mark.parametrize(
    ("story", "status", "images"),
    [
        (completes, "completed", 1),
        (fails_and_is_retried, "failed", 1),
        (is_deleted, "deleted", 0),
        (is_deleted_on_its_way, "deleted", None),
        (goes_with_its_tenant, None, None),
    ],
)
async def test_the_ledger_is_the_same_wherever_it_was_killed(
    story: Story, status: str | None, images: int | None
) -> None:
    whole = System(Fuse())
    image = await story(whole)
    assert image is not None
    expected = await ledger(whole, image)
    assert (expected["row"] and expected["row"][0]) == status
    assert (expected["usage"] and expected["usage"]["images"]) == images
    assert whole.fuse.writes > 10
    unanswered = 0
    for at in range(1, whole.fuse.writes + 1):
        system = System(Fuse(at))
        image = await story(system)
        if image is None:
            # Killed within the upload: nobody was promised anything, and another try succeeds.
            unanswered += 1
            image = await story(system)
            assert image is not None
            found = await ledger(system, image)
            assert found["row"] == expected["row"], at
            assert found["purged"] == expected["purged"], at
            continue
        assert await ledger(system, image) == expected, f"killed behind write {at}"
    # claim, bytes, pointer, metadata object, event; the confirmation is behind the answer
    assert unanswered == 5
