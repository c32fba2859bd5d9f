"""The registry's sums are compared with the pictures that count, whatever goes on meanwhile."""

import copy
import random
from collections import deque
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.partitioner import DefaultPartitioner

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.report import Finding, Ledger
from deeplens_streams.audit.settled import SettledBefore
from deeplens_streams.audit.usage import UsageRecount, progress_partition
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import PROGRESS, TENANT_CHANGES
from deeplens_streams.deletion import image as deletion
from deeplens_streams.pipeline.progress import progress, report
from models.audit import Fault
from models.events import utc_now, wire_time
from models.images import StoredImage
from models.status import ImageProgress, ImageProgressData, ImageRow, Step, StepStatus
from models.tenants import ChangeKind, Tenant, TenantChange, TenantChangeData, Usage
from tables import image_status
from tables.tenants import changed
from tables.usage import counts
from tests.support.killed_systems import PICTURE, Fuse, System
from tests.support.stored_images import image as made_image
from tests.support.tenant_changes import event, tenant

TENANT = "acme"
LONG_AGO = "2026-01-01T00:00:00.000Z"


class Stream:
    """Status table and registry as Kafka feeds them, each when it is told to."""

    def __init__(self) -> None:
        self.services = System(Fuse()).services
        self.rows: dict[str, ImageRow] = {}
        self.row = tenant()
        self.stored: dict[str, StoredImage] = {}
        self.reports: deque[ImageProgress] = deque()
        self.changes: deque[TenantChange] = deque()
        self.offsets: dict[int, int] = {}
        self.read_up_to: datetime | None = datetime.now(UTC)
        self.between: Any = None
        self.is_current = True

    # What is done to it -------------------------------------------------------------------

    async def upload(self, *, tells: bool = True) -> StoredImage:
        image = made_image(self.services.storage, tenant=TENANT)
        image.fileSize = random.Random(len(self.stored)).randrange(1, 10**6)
        await self.services.storage.put_image(image, PICTURE)
        self.stored[image.imageId] = image
        origin = ImageProgress(
            eventType=ImageProgress.EVENT_TYPE,
            tenantId=TENANT,
            correlationId=image.correlationId,
            data=ImageProgressData(imageId=image.imageId, reports=[]),
        )
        steps = [report(Step.IMAGE_PROCESSING, StepStatus.COMPLETED)]
        await self.publish(progress(origin, steps, image if tells else None))
        return image

    async def delete(self) -> None:
        image = self.stored.pop(next(iter(self.stored)))
        await self.publish(deletion.ended(await deletion.bury(image, self.services)))

    async def publish(self, *messages: Message) -> None:
        for message in messages:
            if message.topic is PROGRESS:
                self.reports.append(cast(ImageProgress, message.event))
            else:
                assert message.topic is TENANT_CHANGES
                self.changes.append(cast(TenantChange, message.event))

    # What the stream side does ------------------------------------------------------------

    def track(self) -> None:
        """Take one report into the status table."""
        if not self.reports:
            return
        said = self.reports.popleft()
        partition = int(progress_partition(said.data.imageId))
        self.offsets[partition] = offset = self.offsets.get(partition, -1) + 1
        said.place = (partition, offset)
        row = image_status.joined(self.rows.get(said.data.imageId), said, now=utc_now())
        if row is not None:
            self.rows[row.imageId] = row
            found = counts(row, said)
            if found:
                change = TenantChangeData(
                    kind=ChangeKind.COUNT.value, partition=partition, counts=found
                )
                self.changes.append(TenantChange.new(TENANT, change))

    def keep(self) -> None:
        """Take one change into the registry."""
        if self.changes:
            row = changed(copy.deepcopy(self.row), self.changes.popleft())
            assert row is not None
            self.row = row

    def settle(self) -> None:
        while self.reports or self.changes:
            self.track()
            self.keep()

    def age(self) -> None:
        """Have everything be of long ago."""
        self.settle()
        for row in self.rows.values():
            row.lastUpdated = LONG_AGO

    # What the audit sees ------------------------------------------------------------------

    def registry_rows(self) -> list[Tenant]:
        return [copy.deepcopy(self.row)]

    async def all_rows(self) -> AsyncGenerator[list[ImageRow]]:
        for image_id in sorted(self.rows):
            if self.between is not None:
                await self.between()
            if image_id in self.rows:
                yield [copy.deepcopy(self.rows[image_id])]

    async def found(self, *, repair: bool = True) -> list[Finding]:
        context = SimpleNamespace(
            services=self.services,
            publish=self.publish,
            all_rows=self.all_rows,
            watermark=self,
            settled_before=lambda: SettledBefore(self),
        )
        registry = SimpleNamespace(rows=self.registry_rows, is_current=self.is_current)
        recount = UsageRecount(cast(AuditContext, context), cast(Any, registry))
        found = [each async for each in recount.walk(None, Ledger())]
        assert {each.fault for each in found} <= {Fault.USAGE_WRONG}
        for each in found:
            assert each.repair is not None
            if repair:
                await each.repair()
        return found

    @property
    def truth(self) -> Usage:
        sizes = [image.fileSize for image in self.stored.values()]
        return Usage(images=len(sizes), bytes=sum(sizes))


@pytest.fixture
def stream() -> Stream:
    return Stream()


async def test_what_is_right_is_not_found(stream: Stream) -> None:
    for _ in range(5):
        await stream.upload()
    await stream.delete()
    stream.settle()
    assert await stream.found() == []
    stream.age()
    assert await stream.found() == []
    assert stream.row.usage == stream.truth


async def test_a_sum_that_is_wrong_is_set(stream: Stream) -> None:
    """As it is when the registry was read back from storage, and the status table is whole."""
    for _ in range(5):
        await stream.upload()
    stream.age()
    stream.row.usage, stream.row.counted = Usage(), {}
    (found,) = await stream.found()
    truth = stream.truth
    assert (found.tenant, found.image_id) == (TENANT, "")
    assert found.detail == (f"the registry has 0 images, 0 bytes; there are 5, {truth.bytes:,}")
    stream.settle()
    assert stream.row.usage == truth
    assert await stream.found() == []


async def test_of_two_corrections_of_the_same_one_is_made(stream: Stream) -> None:
    await stream.upload()
    stream.age()
    stream.row.usage = Usage(images=7, bytes=7)
    await stream.found()
    await stream.found()
    stream.settle()
    assert stream.row.usage == stream.truth


async def test_offsets_of_a_topic_that_was_lost_do_not_mislead(stream: Stream) -> None:
    for _ in range(5):
        await stream.upload()
    stream.age()
    for row in stream.rows.values():
        row.countedAt = 5000
    stream.row.counted = {}
    assert await stream.found() == []
    stream.row.counted = dict.fromkeys(map(str, range(PROGRESS.partitions)), 9000)
    assert await stream.found() == []


async def test_a_picture_that_nobody_counted_is_counted(stream: Stream) -> None:
    image = await stream.upload(tells=False)
    await stream.upload()
    stream.age()
    assert stream.row.usage.images == 1
    (found,) = await stream.found()
    assert (found.image_id, found.tenant) == (image.imageId, TENANT)
    stream.settle()
    assert stream.row.usage == stream.truth
    await stream.delete()
    stream.settle()
    assert stream.row.usage == stream.truth
    assert await stream.found() == []


async def test_nothing_is_said_while_nobody_knows_what_is_under_way(stream: Stream) -> None:
    await stream.upload()
    stream.row.usage = Usage(images=7, bytes=7)
    stream.read_up_to = None
    assert await stream.found() == []
    stream.read_up_to, stream.is_current = datetime.now(UTC), False
    assert await stream.found() == []


async def test_a_tenant_that_is_another_one_by_now_keeps_its_own(stream: Stream) -> None:
    await stream.upload()
    stream.age()
    stream.row.usage = Usage(images=7, bytes=7)
    found = await stream.found(repair=False)
    stream.row = (
        changed(None, event(ChangeKind.CREATE, at=wire_time(datetime.now(UTC)))) or tenant()
    )
    assert found[0].repair is not None
    await found[0].repair()
    stream.settle()
    assert stream.row.usage == Usage()


@pytest.mark.parametrize("seed", range(40))
async def test_what_comes_and_goes_meanwhile_stays_counted(stream: Stream, seed: int) -> None:
    """Uploads and deletions at every stage of being counted, before, during and after."""
    chance = random.Random(seed)

    async def step() -> None:
        match chance.randrange(5):
            case 0:
                await stream.upload()
            case 1 if stream.stored:
                await stream.delete()
            case 2:
                stream.track()
            case 3:
                stream.keep()

    for _ in range(chance.randrange(10)):
        await stream.upload()
    stream.age()
    for _ in range(chance.randrange(30)):
        await step()
    wrong = Usage(images=chance.randrange(-5, 6), bytes=chance.randrange(-(10**6), 10**6))
    stream.row.usage.images += wrong.images
    stream.row.usage.bytes += wrong.bytes
    stream.between = step
    found = await stream.found()
    stream.between = None
    assert len(found) == bool(wrong.images or wrong.bytes)
    for _ in range(chance.randrange(30)):
        await step()
    stream.settle()
    assert stream.row.usage == stream.truth
    assert await stream.found() == []


def test_a_partition_is_the_one_that_kafka_takes() -> None:
    every = list(range(PROGRESS.partitions))
    for number in range(50):
        image_id = f"img_{number:08x}-0000-4000-8000-000000000000"
        chosen = DefaultPartitioner()(image_id.encode(), every, every)
        assert progress_partition(image_id) == str(chosen)


_ = timedelta
