"""Changes of a tenant's row: plain functions, one event after the other."""

import time
from typing import Any

import pytest

from agents import tenants as agent
from agents.status_events import together
from agents.status_tracking import process as track
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import STATUS, TENANT_CHANGES, TENANTS
from deeplens_streams.deletion import image as deletion
from deeplens_streams.errors import StorageUnavailable
from deeplens_streams.pipeline.progress import ending, progress, report
from deeplens_streams.services import Services
from models.deletion import TenantPurge
from models.events import utc_now
from models.images import StoredImage
from models.status import Ending, ImageProgress, ImageProgressData, ImageRow, Step, StepStatus
from models.tenants import (
    SYSTEM,
    ApiKey,
    ChangeKind,
    Count,
    Limits,
    Tenant,
    TenantChange,
    Usage,
)
from tables.quota_leases import FILLED_DAYS, FULL
from tables.tenants import ENDED_DAYS, EXISTS, GOING, MAX_ENDED, TOO_FAST, UNKNOWN, changed
from tests.support.killed_systems import Fuse, System
from tests.support.tenant_changes import (
    LATER,
    NEXT_YEAR,
    NOW,
    Registry,
    after,
    count,
    event,
    tenant,
)

SERVICES = System(Fuse()).services


def counted(row: Tenant | None, *counts: Count, partition: int = 0) -> Tenant:
    change = event(ChangeKind.COUNT, partition=partition, counts=list(counts))
    return after(row, change, is_open=True)


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


def uses() -> list[TenantChange]:
    return [
        event(ChangeKind.COUNT, partition=0, counts=[count(1)]),
        event(ChangeKind.LEASE, lease="l", images=1, bytes=1),
        event(ChangeKind.RATE, uploads=1),
    ]


@pytest.mark.parametrize("number", range(3))
def test_use_makes_a_tenant_where_everybody_may_use_the_system(number: int) -> None:
    assert changed(None, uses()[number], is_open=True) is not None
    assert changed(None, uses()[number]) is None, "where keys are on, it comes behind a purge"


@pytest.mark.parametrize("number", range(3))
def test_use_of_before_a_purge_makes_no_tenant_behind_it(number: int) -> None:
    assert changed(None, uses()[number], is_open=True, purged_at=LATER) is None
    made = changed(None, event(ChangeKind.CREATE), is_open=True, purged_at=LATER)
    assert made is not None, "who makes one says so"


def test_a_key_makes_the_systems_row_alone() -> None:
    key = ApiKey(keyId="k", sha256="0" * 64, scopes=["read"], createdAt=NOW)
    assert changed(None, event(ChangeKind.ADD_KEY, key=key)) is None
    operators = event(ChangeKind.ADD_KEY, key=key)
    operators.tenantId = SYSTEM
    assert after(None, operators).keys == [key]


def test_states_and_the_end() -> None:
    row = after(tenant(), event(ChangeKind.SUSPEND))
    assert row.state == "suspended"
    assert after(row, event(ChangeKind.RESUME)).state == "active"
    row = after(row, event(ChangeKind.DELETE))
    assert after(row, event(ChangeKind.RESUME)).state == "deleting", "nobody comes back from that"
    assert changed(row, event(ChangeKind.PURGED)) is None


def test_the_end_of_a_purge_is_not_the_end_of_who_was_made_since() -> None:
    assert after(tenant(), event(ChangeKind.PURGED)).state == "active"


def test_a_tenant_that_nobody_made_is_refused_while_it_is_purged() -> None:
    row = after(None, event(ChangeKind.DELETE))
    for ask in uses()[1:]:
        assert after(row, ask, is_open=True).outcomes[ask.eventId] == GOING
    assert row.leases == {}
    assert changed(row, event(ChangeKind.PURGED)) is None


def test_pictures_of_a_purged_tenant_do_not_count_for_the_next() -> None:
    row = changed(None, event(ChangeKind.CREATE, at=LATER), purged_at=LATER)
    assert counted(row, count(1)).usage.images == 0
    new = event(ChangeKind.COUNT, at=NEXT_YEAR, partition=0, counts=[count(2)])
    assert after(row, new).usage.images == 1


def test_usage_counts_each_offset_once() -> None:
    row = counted(None, count(3), count(5))
    assert (row.usage.images, row.usage.bytes) == (2, 20)
    row = counted(row, count(3), count(5), count(6))
    assert row.usage.images == 3, "a redelivered batch adds only what is new in it"
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


def leased(row: Tenant, lease: str, at: str = NOW, images: int = 10, size: int = 10) -> str:
    """Return what became of asking for a lease."""
    ask = event(ChangeKind.LEASE, at, lease=lease, images=images, bytes=size)
    return after(row, ask).outcomes[ask.eventId]


def test_a_lease_that_is_filled_is_usage_and_one_that_is_returned_is_room() -> None:
    row = tenant(images=8, bytes=1000)
    assert leased(row, "l") == ""
    assert row.leases["l"].images == 1
    row = counted(row, count(0, lease="l", leaseImages=1, leaseBytes=10))
    row = after(row, event(ChangeKind.RETURN, lease="l", images=0, bytes=0))
    assert (row.leases, row.filled or {}, row.usage.images) == ({}, {}, 1)
    assert leased(row, "m") == ""
    row = after(row, event(ChangeKind.RETURN, lease="m", images=1, bytes=10))
    assert (row.leases, row.filled or {}) == ({}, {})


def test_what_is_filled_is_not_free_again_however_late_it_is_counted() -> None:
    row, filled, at = tenant(images=20, bytes=1000), 0, NOW
    for number in range(100):
        at = f"2026-01-01T{number // 5:02}:{number % 5}1:00.000Z"  # ten minutes and more apart
        if leased(row, f"l{number}", at) == FULL:
            break
        filled += row.leases[f"l{number}"].images
        row = after(row, event(ChangeKind.RETURN, at, lease=f"l{number}", images=0, bytes=0))
    assert filled == 20
    assert row.leases == {}, "what waits to be counted does not make the row grow"
    assert leased(row, "late", "2026-01-08T00:00:00.000Z") == FULL
    for number in range(filled):
        row = counted(row, count(number, lease="l0", leaseImages=1, leaseBytes=10))
    assert (row.usage.images, row.filled) == (20, {})
    row = counted(row, count(99, images=-1, size=-10))
    assert leased(row, "next") == ""


def test_a_lease_that_is_given_back_twice_is_given_back_once() -> None:
    row = tenant(images=100, bytes=10_000)
    assert leased(row, "l") == ""
    for _ in range(2):
        row = after(row, event(ChangeKind.RETURN, lease="l", images=4, bytes=40))
    assert row.filled == {NOW[:10]: Usage(images=6, bytes=60)}


def test_room_of_a_picture_that_is_refused_after_all_is_free() -> None:
    row = tenant(images=100, bytes=10_000)
    assert leased(row, "l") == ""
    refused: dict[str, Any] = {"lease": "l", "images": 1, "bytes": 10}
    row = after(row, event(ChangeKind.REFUSED, **refused))
    assert row.leases["l"].images == 9
    row = after(row, event(ChangeKind.RETURN, lease="l", images=7, bytes=70))
    row = after(row, event(ChangeKind.REFUSED, **refused))
    assert row.filled == {NOW[:10]: Usage(images=1, bytes=10)}


def test_room_of_who_is_gone_comes_back() -> None:
    row = after(tenant(images=1), event(ChangeKind.LEASE, lease="l", images=1, bytes=1))
    assert leased(row, "m") == FULL
    assert leased(row, "n", LATER) == ""
    assert set(row.leases) == {"n"}


def test_filled_room_that_is_never_counted_comes_back_in_the_end() -> None:
    row = tenant(images=1)
    assert leased(row, "l") == ""
    row = after(row, event(ChangeKind.RETURN, lease="l", images=0, bytes=0))
    assert leased(row, "m", f"2026-01-{FILLED_DAYS:02}T00:00:00.000Z") == FULL
    assert leased(row, "n", "2026-02-02T00:00:00.000Z") == ""


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


def test_rates_are_of_one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 6_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    row = tenant(uploadsPerMinute=5)
    for asked, outcome in ((3, ""), (3, TOO_FAST), (2, ""), (1, TOO_FAST)):
        ask = event(ChangeKind.RATE, uploads=asked)
        row = after(row, ask)
        assert row.outcomes[ask.eventId] == outcome
    # The owner's clock alone tells when the next one begins: others' may be a minute ahead.
    ahead = event(ChangeKind.RATE, at=LATER, uploads=1)
    assert after(row, ahead).outcomes[ahead.eventId] == TOO_FAST
    now += 60
    for at in (LATER, NOW):
        ask = event(ChangeKind.RATE, at=at, uploads=2)
        assert after(row, ask).outcomes[ask.eventId] == ""


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


def ended_key(number: int, **ends: Any) -> ApiKey:
    return ApiKey(keyId=f"k{number}", sha256="0" * 64, scopes=["read"], createdAt=NOW, **ends)


def test_keys_that_ended_are_forgotten_after_a_while() -> None:
    long_ago, lately = "2026-11-01T00:00:00.000Z", "2026-12-15T00:00:00.000Z"
    assert ENDED_DAYS < 60
    row = tenant()
    row.keys = [
        *(ended_key(0, revokedAt=long_ago), ended_key(1, expiresAt=long_ago)),
        *(ended_key(2, revokedAt=lately), ended_key(3, expiresAt=lately)),
        ended_key(4, expiresAt="2027-02-01T00:00:00.000Z"),
    ]
    row = after(row, event(ChangeKind.ADD_KEY, at=NEXT_YEAR, key=ended_key(5)))
    assert [key.keyId for key in row.keys] == ["k2", "k3", "k4", "k5"]


def test_a_row_has_a_bounded_number_of_keys_that_ended() -> None:
    row = tenant()
    for number in range(1000):
        row = after(row, event(ChangeKind.ADD_KEY, key=ended_key(number)))
        row = after(row, event(ChangeKind.EXPIRE_KEY, keyId=f"k{number}"))
    assert len(row.keys) == MAX_ENDED + 1


def test_a_row_remembers_a_bounded_number_of_outcomes() -> None:
    row = tenant()
    for _ in range(200):
        row = after(row, event(ChangeKind.RESUME))
    assert len(row.outcomes) == 64


def system() -> Services:
    return System(Fuse()).services


async def process(
    change: TenantChange, rows: dict[bytes, Tenant], services: Services = SERVICES
) -> list[Message]:
    return await agent.process(change, rows, services, is_open=True)


async def test_the_agent_announces_rows_and_their_end() -> None:
    rows: dict[bytes, Tenant] = {}
    (message,) = await process(event(ChangeKind.CREATE), rows)
    assert (message.topic, message.event.tenantId, message.is_tombstone) == (TENANTS, "acme", False)
    await process(event(ChangeKind.DELETE), rows)
    (message,) = await process(event(ChangeKind.PURGED), rows)
    assert (message.event.key, message.is_tombstone, rows) == ("acme", True, {})
    assert await process(event(ChangeKind.SUSPEND), rows) == []


@pytest.mark.parametrize("number", range(3))
async def test_what_comes_behind_a_purge_makes_no_tenant(number: int) -> None:
    services, rows = system(), dict[bytes, Tenant]()
    purge = TenantPurge(tenantId="acme", requestedAt=NOW)
    await services.tombstones.put_purge(purge)
    late = uses()[number]
    late.timestamp = LATER
    assert await process(late, rows, services) == [], "it is not at its end"
    purge.emptiedAt = LATER
    await services.tombstones.put_purge(purge)
    assert await process(late, rows, services) == []
    late.timestamp = "2026-01-01T00:11:00.001Z"
    assert len(await process(late, rows, services)) == 1
    assert rows[b"acme"].purgedAt == LATER


async def test_a_tenant_is_made_while_storage_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(**_tenant: str) -> None:
        raise StorageUnavailable

    services, rows = system(), dict[bytes, Tenant]()
    monkeypatch.setattr(services.tombstones, "find_purge", away)
    await process(event(ChangeKind.CREATE), rows, services)
    assert rows[b"acme"].state == "active"
    count, lease, rate = uses()
    for use in (count, lease):
        use.tenantId = "other"
        with pytest.raises(StorageUnavailable):
            await process(use, rows, services)
    rate.tenantId = "other"
    assert await process(rate, rows, services) == [], "others must not wait for one search"


async def test_an_unknown_change_is_refused() -> None:
    strange = event(ChangeKind.CREATE)
    strange.data.kind = "explode"
    with pytest.raises(Exception, match="no change 'explode'"):
        await process(strange, {})


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
    return _at(ending(uploaded(image, 0), how, uploaded_at=image.uploadedAt), offset)


def _at(message: Message, offset: int) -> ImageProgress:
    found = message.event
    assert isinstance(found, ImageProgress)
    found.place = (2, offset)
    return found


async def tracked(event: ImageProgress, rows: dict[bytes, ImageRow]) -> list[Message]:
    return await track(event, rows, SERVICES, Registry())


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
    (first,) = _changes(await tracked(uploaded(image, 4), rows))
    assert (first.images, first.bytes, first.lease, first.leaseImages) == (1, 123, "l", 1)
    (same,) = _changes(await tracked(uploaded(image, 4), rows))
    assert same == first
    assert _changes(await tracked(uploaded(image, 5), rows)) == []


async def test_a_deleted_picture_is_taken_off(image: StoredImage) -> None:
    rows: dict[bytes, ImageRow] = {}
    await tracked(uploaded(image, 4), rows)
    (gone,) = _changes(await tracked(ended(image, Ending.DELETED, 6), rows))
    assert (gone.offset, gone.images, gone.bytes) == (6, -1, -123)
    assert _changes(await tracked(ended(image, Ending.DELETED, 8), rows)) == []
    (again,) = _changes(await tracked(ended(image, Ending.DELETED, 6), rows))
    assert again == gone


async def test_a_picture_that_was_deleted_first_never_counts(image: StoredImage) -> None:
    rows: dict[bytes, ImageRow] = {}
    assert _changes(await tracked(ended(image, Ending.DELETED, 3), rows)) == []
    assert _changes(await tracked(uploaded(image, 4), rows)) == []


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_picture_that_is_deleted_before_it_counts_gives_its_room_back(
    image: StoredImage, is_known: bool
) -> None:
    rows: dict[bytes, ImageRow] = {}
    services = system()
    if is_known:  # a stage said that it waits, before any knew how large the picture is
        waits = uploaded(image, 1)
        waits.data.fileSize = waits.data.lease = None
        await tracked(waits, rows)
    _, message = deletion.messages(await deletion.begin(image, services))
    (room,) = _changes(await tracked(_at(message, 3), rows))
    assert (room.images, room.bytes) == (0, 0)
    assert (room.lease, room.leaseImages, room.leaseBytes) == ("l", 1, 123)
    assert _changes(await tracked(_at(message, 3), rows)) == [room]
    assert _changes(await tracked(_at(message, 5), rows)) == []
    assert _changes(await tracked(uploaded(image, 6), rows)) == []


async def test_a_purged_picture_has_no_row_any_more(image: StoredImage) -> None:
    rows: dict[bytes, ImageRow] = {}
    await tracked(uploaded(image, 4), rows)
    foreign = ended(image, Ending.PURGED, 5)
    foreign.tenantId = "another"
    assert await tracked(foreign, rows) == []
    assert rows
    for offset in (6, 7):  # the second is a redelivery
        (message,) = await tracked(ended(image, Ending.PURGED, offset), rows)
        assert (message.topic, message.is_tombstone) == (STATUS, True)
        assert message.event.key == image.imageId
        assert rows == {}


async def test_counts_of_a_batch_are_one_message(image: StoredImage) -> None:
    rows: dict[bytes, ImageRow] = {}
    messages = []
    for offset in range(5):
        image.imageId = f"img_11111111-1111-4111-8111-11111111111{offset}"
        messages += await tracked(uploaded(image, offset), rows)
    folded = together(messages)
    assert len(_changes(folded)) == 5
    assert len([each for each in folded if each.topic is TENANT_CHANGES]) == 1
    assert len([each for each in folded if each.topic is STATUS]) == 5


async def test_of_a_row_that_changes_twice_in_a_batch_the_last_is_told(image: StoredImage) -> None:
    rows: dict[bytes, ImageRow] = {}
    first = await tracked(uploaded(image, 0), rows)
    last = await tracked(ended(image, Ending.DELETED, 1), rows)
    told = [each for each in together([*first, *last]) if each.topic is STATUS]
    assert [each.event.data.status for each in told] == ["deleted"]
