"""Changes of a tenant's row: plain functions, one event after the other."""

from typing import Any

import pytest

from agents import tenants as agent
from agents.status_tracking import process as track
from agents.status_tracking import together
from deeplens_streams.reports import ending, progress, report
from deeplens_streams.topics import STATUS, TENANT_CHANGES, TENANTS, Message
from models.events import new_event_id, utc_now
from models.images import StoredImage
from models.status import Ending, ImageProgress, ImageProgressData, ImageRow, Step, StepStatus
from models.tenants import (
    ApiKey,
    ChangeKind,
    Count,
    Limits,
    Tenant,
    TenantChange,
    TenantChangeData,
)
from tables.tenants import EXISTS, FULL, TOO_FAST, UNKNOWN, changed
from tests.behaviour.test_kill_points import Fuse, System

SERVICES = System(Fuse()).services
NOW = "2026-01-01T00:00:00.000Z"
LATER = "2026-01-01T00:11:00.000Z"


def event(kind: ChangeKind, at: str = NOW, **data: Any) -> TenantChange:
    return TenantChange(
        eventType=TenantChange.EVENT_TYPE,
        eventId=new_event_id(),
        timestamp=at,
        tenantId="acme",
        data=TenantChangeData(kind=kind.value, **data),
    )


def after(row: Tenant | None, change: TenantChange) -> Tenant:
    found = changed(row, change)
    assert found is not None
    return found


def tenant(**limits: int) -> Tenant:
    return after(None, event(ChangeKind.CREATE, limits=Limits(**limits)))


def count(offset: int, images: int = 1, size: int = 10, **more: Any) -> Count:
    return Count(offset=offset, images=images, bytes=size, **more)


def counted(row: Tenant | None, *counts: Count, partition: int = 0) -> Tenant:
    return after(row, event(ChangeKind.COUNT, partition=partition, counts=list(counts)))


def test_a_tenant_is_created_once() -> None:
    create = event(ChangeKind.CREATE, limits=Limits(images=5))
    row = after(None, create)
    assert (row.state, row.limits.images, row.outcomes) == ("active", 5, {create.eventId: ""})
    again = event(ChangeKind.CREATE)
    assert after(row, again).outcomes[again.eventId] == EXISTS
    assert after(row, create).outcomes[create.eventId] == "", "the same event again is no refusal"


@pytest.mark.parametrize("kind", [ChangeKind.SUSPEND, ChangeKind.LIMIT, ChangeKind.EXPIRE_KEY])
def test_what_is_not_there_cannot_change(kind: ChangeKind) -> None:
    assert changed(None, event(kind)) is None


def test_states_and_the_end() -> None:
    row = after(tenant(), event(ChangeKind.SUSPEND))
    assert row.state == "suspended"
    assert after(row, event(ChangeKind.RESUME)).state == "active"
    row = after(row, event(ChangeKind.DELETE))
    assert after(row, event(ChangeKind.RESUME)).state == "deleting", "nobody comes back from that"
    assert changed(row, event(ChangeKind.PURGED)) is None


def test_usage_counts_each_offset_once() -> None:
    row = counted(None, count(3), count(5))
    assert (row.usage.images, row.usage.bytes) == (2, 20)
    row = counted(row, count(3), count(5), count(6))
    assert row.usage.images == 3, "a redelivered bunch adds only what is new in it"
    row = counted(row, count(0), partition=1)
    assert row.usage.images == 4, "each partition has offsets of its own"
    row = counted(row, count(9, images=-1, size=-10))
    assert (row.usage.images, row.usage.bytes) == (3, 30)


def test_a_tenant_that_is_gone_does_not_come_back_by_what_goes() -> None:
    assert changed(None, event(ChangeKind.COUNT, partition=0, counts=[count(1, -1, -10)])) is None


def test_room_is_handed_out_in_parts_and_never_more_than_there_is() -> None:
    row, granted = tenant(images=100), 0
    for number in range(1000):
        ask = event(ChangeKind.LEASE, lease=f"l{number}", images=10, bytes=1)
        row = after(row, ask)
        if row.outcomes[ask.eventId] == FULL:
            break
        granted += row.leases[f"l{number}"].images
    assert granted == 100
    assert row.leases["l0"].images == 10
    assert row.leases[f"l{number - 1}"].images == 1, "the last ones lie idle nowhere"
    assert row.recalls == 1


def test_a_lease_that_is_filled_is_usage_and_one_that_is_returned_is_room() -> None:
    row = tenant(images=8)
    row = after(row, event(ChangeKind.LEASE, lease="l", images=10, bytes=10))
    assert row.leases["l"].images == 1
    row = counted(row, count(0, lease="l", leaseImages=1, leaseBytes=10))
    assert (row.leases, row.usage.images) == ({}, 1)
    row = after(row, event(ChangeKind.LEASE, lease="m", images=1, bytes=10))
    row = after(row, event(ChangeKind.RETURN, lease="m", images=1, bytes=10))
    assert row.leases == {}


def test_room_of_who_is_gone_comes_back() -> None:
    row = after(tenant(images=1), event(ChangeKind.LEASE, lease="l", images=1, bytes=1))
    refused = event(ChangeKind.LEASE, lease="m", images=1, bytes=1)
    row = after(row, refused)
    assert row.outcomes[refused.eventId] == FULL
    granted = event(ChangeKind.LEASE, LATER, lease="n", images=1, bytes=1)
    row = after(row, granted)
    assert set(row.leases) == {"n"}


def test_bytes_are_limited_too() -> None:
    row = tenant(bytes=100)
    ask = event(ChangeKind.LEASE, lease="l", images=10, bytes=101)
    assert after(row, ask).outcomes[ask.eventId] == FULL
    row = after(row, event(ChangeKind.LEASE, lease="l", images=10, bytes=60))
    assert row.leases["l"].bytes == 60
    ask = event(ChangeKind.LEASE, lease="m", images=10, bytes=41)
    assert after(row, ask).outcomes[ask.eventId] == FULL


def test_the_system_limits_who_has_no_limits() -> None:
    ask = event(ChangeKind.LEASE, lease="l", images=10, bytes=1, limits=Limits(images=0))
    assert after(tenant(), ask).outcomes[ask.eventId] == FULL
    own = event(ChangeKind.LEASE, lease="l", images=10, bytes=1, limits=Limits(images=0))
    assert after(tenant(images=3), own).outcomes[own.eventId] == ""


def test_rates_are_of_one_minute() -> None:
    row = tenant(uploadsPerMinute=5)
    for asked, outcome in ((3, ""), (3, TOO_FAST), (2, ""), (1, TOO_FAST)):
        ask = event(ChangeKind.RATE, minute=7, uploads=asked)
        row = after(row, ask)
        assert row.outcomes[ask.eventId] == outcome
    ask = event(ChangeKind.RATE, minute=8, uploads=5)
    assert after(row, ask).outcomes[ask.eventId] == ""
    late = event(ChangeKind.RATE, minute=7, uploads=1)
    assert after(row, late).outcomes[late.eventId] == TOO_FAST


def test_keys_end_at_once_or_after_a_while() -> None:
    key = ApiKey(keyId="k", sha256="0" * 64, scopes=["read"], createdAt=NOW)
    row = after(tenant(), event(ChangeKind.ADD_KEY, key=key))
    row = after(row, event(ChangeKind.ADD_KEY, key=key))
    assert len(row.keys) == 1
    row = after(row, event(ChangeKind.EXPIRE_KEY, keyId="k", until=LATER))
    assert (row.keys[0].expiresAt, row.keys[0].revokedAt) == (LATER, None)
    row = after(row, event(ChangeKind.EXPIRE_KEY, keyId="k"))
    assert row.keys[0].revokedAt == NOW
    unknown = event(ChangeKind.EXPIRE_KEY, keyId="other")
    assert after(row, unknown).outcomes[unknown.eventId] == UNKNOWN
    row = after(row, event(ChangeKind.KEYS_USED, keysUsed={"k": LATER, "gone": LATER}))
    assert row.keys[0].lastUsedAt == LATER


def test_a_row_remembers_a_bounded_number_of_outcomes() -> None:
    row = tenant()
    for _ in range(200):
        row = after(row, event(ChangeKind.RESUME))
    assert len(row.outcomes) == 64


async def test_the_agent_announces_rows_and_their_end() -> None:
    rows: dict[bytes, Tenant] = {}
    (message,) = await agent.process(event(ChangeKind.CREATE), rows)
    assert (message.topic, message.event.tenantId, message.is_tombstone) == (TENANTS, "acme", False)
    (message,) = await agent.process(event(ChangeKind.PURGED), rows)
    assert (message.event.key, message.is_tombstone, rows) == ("acme", True, {})
    assert await agent.process(event(ChangeKind.SUSPEND), rows) == []


async def test_an_unknown_change_is_refused() -> None:
    strange = event(ChangeKind.CREATE)
    strange.data.kind = "explode"
    with pytest.raises(Exception, match="no change 'explode'"):
        await agent.process(strange, {})


# What the status table tells of usage ---------------------------------------------------------


def uploaded(image: StoredImage, offset: int) -> ImageProgress:
    """Return the report of image processing, as it was read at `offset`."""
    origin = ImageProgress(
        eventType=ImageProgress.EVENT_TYPE,
        tenantId=image.tenantId,
        correlationId=image.correlationId,
        data=ImageProgressData(imageId=image.imageId, reports=[]),
    )
    message = progress(origin, [report(Step.IMAGE_PROCESSING, StepStatus.COMPLETED)], image)
    return _at(message, offset)


def ended(image: StoredImage, how: Ending, offset: int) -> ImageProgress:
    return _at(ending(uploaded(image, 0), how), offset)


def _at(message: Message, offset: int) -> ImageProgress:
    found = message.event
    assert isinstance(found, ImageProgress)
    found.place = (2, offset)
    return found


def _changes(messages: list[Message]) -> list[Count]:
    return [
        each
        for message in messages
        if message.topic is TENANT_CHANGES and isinstance(message.event, TenantChange)
        for each in message.event.data.counts or []
    ]


@pytest.fixture
def image() -> StoredImage:
    return StoredImage.from_wire(
        {
            "imageId": "img_11111111-1111-4111-8111-111111111111",
            "tenantId": "acme",
            "correlationId": "c",
            "fileName": "a.jpg",
            "originalKey": "k",
            "thumbnailKey": "t",
            "fileSize": 123,
            "contentType": "image/jpeg",
            "checksumSha256": "0" * 64,
            "uploadedAt": utc_now(),
            "metadata": {},
            "processingOptions": {"models": ["resnet50"]},
            "tags": {},
            "lease": "l",
        }
    )


async def test_a_picture_counts_once_and_again_after_a_redelivery(image: StoredImage) -> None:
    rows: dict[bytes, ImageRow] = {}
    (first,) = _changes(await track(uploaded(image, 4), rows, SERVICES))
    assert (first.images, first.bytes, first.lease, first.leaseImages) == (1, 123, "l", 1)
    (same,) = _changes(await track(uploaded(image, 4), rows, SERVICES))
    assert same == first
    assert _changes(await track(uploaded(image, 5), rows, SERVICES)) == []


async def test_a_deleted_picture_is_taken_off(image: StoredImage) -> None:
    rows: dict[bytes, ImageRow] = {}
    await track(uploaded(image, 4), rows, SERVICES)
    (gone,) = _changes(await track(ended(image, Ending.DELETED, 6), rows, SERVICES))
    assert (gone.offset, gone.images, gone.bytes) == (6, -1, -123)
    assert _changes(await track(ended(image, Ending.DELETED, 8), rows, SERVICES)) == []
    (again,) = _changes(await track(ended(image, Ending.DELETED, 6), rows, SERVICES))
    assert again == gone


async def test_a_picture_that_was_deleted_first_never_counts(image: StoredImage) -> None:
    rows: dict[bytes, ImageRow] = {}
    assert _changes(await track(ended(image, Ending.DELETED, 3), rows, SERVICES)) == []
    assert _changes(await track(uploaded(image, 4), rows, SERVICES)) == []


async def test_a_purged_picture_has_no_row_any_more(image: StoredImage) -> None:
    rows: dict[bytes, ImageRow] = {}
    await track(uploaded(image, 4), rows, SERVICES)
    foreign = ended(image, Ending.PURGED, 5)
    foreign.tenantId = "another"
    assert await track(foreign, rows, SERVICES) == []
    assert rows
    for offset in (6, 7):  # the second is a redelivery
        (message,) = await track(ended(image, Ending.PURGED, offset), rows, SERVICES)
        assert (message.topic, message.is_tombstone) == (STATUS, True)
        assert message.event.key == image.imageId
        assert rows == {}


async def test_counts_of_a_bunch_are_one_message(image: StoredImage) -> None:
    rows: dict[bytes, ImageRow] = {}
    messages = []
    for offset in range(5):
        image.imageId = f"img_11111111-1111-4111-8111-11111111111{offset}"
        messages += await track(uploaded(image, offset), rows, SERVICES)
    folded = together(messages)
    assert len(_changes(folded)) == 5
    assert len([each for each in folded if each.topic is TENANT_CHANGES]) == 1
    assert len([each for each in folded if each.topic is STATUS]) == 5
