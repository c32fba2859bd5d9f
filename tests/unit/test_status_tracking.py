"""The end of a picture is announced once, and again only when a report is delivered again."""

import copy
from typing import Any

import pytest

from deeplens_streams.broker.topology import COMPLETED, IMAGE_PROCESSING, STATUS, TENANT_CHANGES
from deeplens_streams.deletion import image as deletion
from deeplens_streams.errors import StorageUnavailable, TableUnavailable
from deeplens_streams.pipeline.progress import ending, failure_reporter, progress
from deeplens_streams.pipeline.requests import uploaded_event
from deeplens_streams.services import Services
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import Write
from models.deletion import TenantPurge
from models.events import utc_now
from models.images import StoredImage
from models.status import Ending, ImageProgress, ImageRow, Step, StepReport, StepStatus
from tests.support.killed_systems import Fuse, System
from tests.support.progress import IMAGE, event, good_way
from tests.support.progress import report as made_report
from tests.support.status_tracking import process
from tests.support.stored_images import image as made_image


async def test_each_report_is_told_and_the_end_is_announced_once() -> None:
    rows: dict[bytes, ImageRow] = {}
    topics = [[m.topic for m in await process(each, rows)] for each in good_way()]
    assert topics == [[STATUS]] * 4 + [[STATUS, COMPLETED]]
    assert rows[IMAGE.encode()].status == "completed"


async def test_a_report_that_is_delivered_again_announces_the_same_event() -> None:
    rows: dict[bytes, ImageRow] = {}
    for each in good_way()[:-1]:
        await process(each, rows)
    last = good_way()[-1]
    _, first = await process(copy.deepcopy(last), rows)
    _, again = await process(copy.deepcopy(last), rows)
    assert (first.topic, again.topic) == (COMPLETED, COMPLETED)
    assert first.event.eventId == again.event.eventId


async def test_a_report_that_is_delivered_again_writes_the_row_again() -> None:
    """Its changelog may have missed it, where the worker was killed between the two."""

    written = []

    class Rows(dict[bytes, ImageRow]):
        def __setitem__(self, key: bytes, value: ImageRow) -> None:
            written.append(key)
            super().__setitem__(key, value)

    rows, first = Rows(), good_way()[0]
    await process(copy.deepcopy(first), rows)
    row = rows[IMAGE.encode()]
    await process(copy.deepcopy(first), rows)
    assert written == [IMAGE.encode()] * 2
    assert rows[IMAGE.encode()] is row


async def test_strangers_hear_nothing() -> None:
    rows: dict[bytes, ImageRow] = {}
    await process(good_way()[0], rows)
    assert await process(event(made_report(Step.VECTOR_INDEXING), tenant="evil"), rows) == []


async def test_the_next_generation_has_its_own_end() -> None:
    rows: dict[bytes, ImageRow] = {}
    for each in good_way():
        await process(each, rows)
    ends = []
    for each in good_way():
        each.generation = 2
        sent = await process(each, rows)
        ends += [m.event.eventId for m in sent if m.topic is COMPLETED]
    assert len(ends) == 1
    failed = made_report(Step.FEATURE_EXTRACTION, StepStatus.FAILED, "other")
    assert await process(event(failed), rows) != []
    assert rows[IMAGE.encode()].status == "completed"


async def test_a_table_that_fails_is_waited_for() -> None:
    class FullDisk(dict[bytes, Any]):
        def __setitem__(self, key: bytes, value: ImageRow) -> None:
            raise OSError("No space left on device")

    with pytest.raises(TableUnavailable) as caught:
        await process(good_way()[0], FullDisk())
    assert caught.value.retryable


async def test_a_time_that_is_none_does_not_keep_an_end_from_being_announced() -> None:
    rows: dict[bytes, ImageRow] = {}
    sent = []
    for each in good_way():
        each.data.uploadedAt, each.timestamp = "yesterday", ""
        sent += await process(each, rows)
    assert [m.topic for m in sent].count(COMPLETED) == 1


# What comes behind a tenant's purge ----------------------------------------------------------


def said(image: StoredImage, *reports: StepReport) -> ImageProgress:
    """Return what a stage says that has read the picture's metadata."""
    origin = event()
    origin.tenantId, origin.data.imageId = image.tenantId, image.imageId
    message = progress(origin, list(reports), image).event
    assert isinstance(message, ImageProgress)
    return message


def end(image: StoredImage, how: Ending) -> ImageProgress:
    message = ending(said(image), how, uploaded_at=image.uploadedAt).event
    assert isinstance(message, ImageProgress)
    return message


async def stored(services: Services) -> StoredImage:
    image = made_image(services.storage)
    await services.storage.put_image(image, b"picture")
    return image


async def test_what_a_stage_says_behind_the_purge_makes_no_row() -> None:
    services, rows = System(Fuse()).services, dict[bytes, ImageRow]()
    image = await stored(services)
    late = said(image, made_report(Step.IMAGE_PROCESSING))
    sent = await process(copy.deepcopy(late), rows, services, known=False)
    assert [message.topic for message in sent] == [STATUS, TENANT_CHANGES], "it is stored still"
    # The purge: tombstone, metadata, row, tombstone.
    tombstone = await deletion.begin(image, services)
    await process(end(image, Ending.PURGED), rows, services, known=False)
    for _ in range(2):
        assert await process(copy.deepcopy(late), rows, services, known=False) == []
        await services.tombstones.remove(tombstone)
    waits = copy.deepcopy(late)
    waits.data.uploadedAt = None
    assert await process(waits, rows, services, known=False) == []
    for how in (Ending.DROPPED, Ending.DELETED):
        assert await process(end(image, how), rows, services, known=False) == []
    assert rows == {}


async def test_a_deletion_behind_the_purge_of_its_tenant_makes_no_row() -> None:
    services, rows = System(Fuse()).services, dict[bytes, ImageRow]()
    image = await stored(services)
    await deletion.begin(image, services)
    sent = await process(end(image, Ending.DELETED), dict(rows), services, known=False)
    assert [message.topic for message in sent] == [STATUS], "its tenant is there"
    # The purge has removed the row, and then it removes the tombstone.
    purge = TenantPurge(tenantId=image.tenantId, requestedAt=utc_now())
    await services.tombstones.put_purge(purge)
    assert await process(end(image, Ending.DELETED), rows, services, known=False) == []
    assert rows == {}


async def test_a_known_tenants_first_report_costs_no_look_into_storage() -> None:
    services = System(Fuse()).services
    image, rows = made_image(services.storage), dict[bytes, ImageRow]()
    report = said(image, made_report(Step.IMAGE_PROCESSING))
    assert await process(report, rows, services) != [], "there is nothing in storage to be found"


async def test_a_row_that_a_crash_brought_back_does_not_count_for_a_tenant_that_is_gone() -> None:
    """Its removal was not in its changelog; what was read before that comes again."""
    rows: dict[bytes, ImageRow] = {}
    for each in good_way()[:-1]:
        await process(each, rows)
    half, last = copy.deepcopy(rows), good_way()[-1]
    await process(copy.deepcopy(last), rows)
    services = System(Fuse()).services
    for recovered in (half, rows):
        # The registry has not read of the tenant yet.
        there = copy.deepcopy(recovered)
        assert await process(copy.deepcopy(last), there, services, known=False) != []
    purge = TenantPurge(tenantId=last.tenantId, requestedAt=utc_now())
    await services.tombstones.put_purge(purge)
    for recovered in (half, rows):
        status = recovered[IMAGE.encode()].status
        assert await process(copy.deepcopy(last), recovered, services, known=False) == []
        assert recovered[IMAGE.encode()].status == status


# While storage is away -------------------------------------------------------------------------


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Services:
    """Services whose storage does not answer."""

    async def no_answer(*_args: Any, **_kwargs: Any) -> None:
        raise StorageUnavailable

    services = System(Fuse()).services
    for part in (services.storage, services.tombstones):
        for name in ("get_metadata", "find", "find_purge"):
            if hasattr(part, name):
                monkeypatch.setattr(part, name, no_answer)
    return services


def waiting(image: StoredImage) -> ImageProgress:
    """Return what a stage says that could not read the picture's metadata."""
    tell = failure_reporter(IMAGE_PROCESSING)
    (message,) = tell(uploaded_event(image), StepStatus.RETRYING, StorageUnavailable(), 1)
    assert isinstance(message.event, ImageProgress)
    return message.event


async def test_a_picture_that_waits_for_storage_has_a_row_that_says_so(away: Services) -> None:
    """Its stage knows of it what its event says."""
    rows, image = dict[bytes, ImageRow](), made_image(away.storage)
    assert await process(waiting(image), rows, away) != []
    row = rows[image.imageId.encode()]
    assert (row.uploadedAt, row.models) == (image.uploadedAt, image.processingOptions.models)
    (step,) = row.steps
    assert (step.status, step.errorCode) == ("retrying", "STORAGE_UNAVAILABLE")
    assert step.errorMessage


async def test_a_report_waits_for_no_proof_of_a_purge_that_cannot_be_read() -> None:
    system, rows = System(Fuse()), dict[bytes, ImageRow]()
    first, *others = good_way()
    await system.blobs.put(
        Write(object_keys.purge_key(first.tenantId), b""), action="cut the power"
    )
    await process(first, rows, system.services)
    for each in others:
        assert await process(each, rows, system.services, known=False) != []
    assert rows[IMAGE.encode()].status == "completed"
    end = ending(others[-1], Ending.DELETED)
    assert isinstance(end.event, ImageProgress)
    assert await process(end.event, {}, system.services, known=False) == [], "it is said again"


@pytest.mark.parametrize("known", [True, False])
async def test_a_report_of_a_picture_with_a_row_needs_no_storage(
    away: Services, known: bool
) -> None:
    rows: dict[bytes, ImageRow] = {}
    for each in good_way():
        assert await process(each, rows, away, known=known) != []
    assert rows[IMAGE.encode()].status == "completed"


async def test_a_report_that_has_no_time_is_known_by_its_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    async def find_purge(**about: str) -> None:
        asked.append(about)

    services, rows = System(Fuse()).services, dict[bytes, ImageRow]()
    monkeypatch.setattr(services.tombstones, "find_purge", find_purge)
    first, second, *_ = good_way()
    await process(first, rows, services)
    second.data.uploadedAt = None
    assert await process(second, rows, services) != []
    assert asked == []


async def test_what_is_said_again_makes_no_row_of_a_tenant_that_may_be_gone(
    away: Services,
) -> None:
    """And what is said once is not lost: an audit finds the row if there was to be none."""
    rows, image = dict[bytes, ImageRow](), made_image(away.storage)
    for said_again in (waiting(image), end(image, Ending.DELETED)):
        assert await process(said_again, rows, away, known=False) == []
    assert rows == {}
    once = said(image, made_report(Step.IMAGE_PROCESSING))
    assert await process(once, rows, away, known=False) != []
    assert rows[image.imageId.encode()].status == "processing"
