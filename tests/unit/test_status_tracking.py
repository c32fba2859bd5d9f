"""The end of a picture is announced once, and again only when a report is delivered again."""

import copy
from typing import Any

import pytest

from agents.status_tracking import process
from deeplens_streams.errors import TableUnavailable
from deeplens_streams.topics import COMPLETED, STATUS
from models.status import ImageRow, Step, StepStatus
from tests.behaviour.test_kill_points import Fuse, System
from tests.unit.test_image_status import IMAGE, event, good_way, report

SERVICES = System(Fuse()).services


async def test_each_report_is_told_and_the_end_is_announced_once() -> None:
    rows: dict[bytes, ImageRow] = {}
    topics = [[m.topic for m in await process(each, rows, SERVICES)] for each in good_way()]
    assert topics == [[STATUS]] * 4 + [[STATUS, COMPLETED]]
    assert rows[IMAGE.encode()].status == "completed"


async def test_a_report_that_is_delivered_again_announces_the_same_event() -> None:
    rows: dict[bytes, ImageRow] = {}
    for each in good_way()[:-1]:
        await process(each, rows, SERVICES)
    last = good_way()[-1]
    _, first = await process(copy.deepcopy(last), rows, SERVICES)
    _, again = await process(copy.deepcopy(last), rows, SERVICES)
    assert (first.topic, again.topic) == (COMPLETED, COMPLETED)
    assert first.event.eventId == again.event.eventId


async def test_strangers_hear_nothing() -> None:
    rows: dict[bytes, ImageRow] = {}
    await process(good_way()[0], rows, SERVICES)
    assert await process(event(report(Step.VECTOR_INDEXING), tenant="evil"), rows, SERVICES) == []


async def test_the_next_generation_has_its_own_end() -> None:
    rows: dict[bytes, ImageRow] = {}
    for each in good_way():
        await process(each, rows, SERVICES)
    ends = []
    for each in good_way():
        each.generation = 2
        sent = await process(each, rows, SERVICES)
        ends += [m.event.eventId for m in sent if m.topic is COMPLETED]
    assert len(ends) == 1
    failed = report(Step.FEATURE_EXTRACTION, StepStatus.FAILED, "other")
    assert await process(event(failed), rows, SERVICES) != []
    assert rows[IMAGE.encode()].status == "completed"


async def test_a_table_that_fails_is_waited_for() -> None:
    class FullDisk(dict[bytes, Any]):
        def __setitem__(self, key: bytes, value: ImageRow) -> None:
            raise OSError("No space left on device")

    with pytest.raises(TableUnavailable) as caught:
        await process(good_way()[0], FullDisk(), SERVICES)
    assert caught.value.retryable


async def test_a_time_that_is_none_does_not_keep_an_end_from_being_announced() -> None:
    rows: dict[bytes, ImageRow] = {}
    sent = []
    for each in good_way():
        each.data.uploadedAt, each.timestamp = "yesterday", ""
        sent += await process(each, rows, SERVICES)
    assert [m.topic for m in sent].count(COMPLETED) == 1
