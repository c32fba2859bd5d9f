"""The end of a picture is announced once, and again only when a report is delivered again."""

import copy
from typing import Any

import pytest

from agents.status_tracking import process
from deeplens_streams.errors import TableUnavailable
from deeplens_streams.topics import COMPLETED, STATUS
from models.status import ImageRow, Step, StepStatus
from tests.unit.test_image_status import IMAGE, event, good_way, report


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


async def test_strangers_hear_nothing() -> None:
    rows: dict[bytes, ImageRow] = {}
    await process(good_way()[0], rows)
    assert await process(event(report(Step.VECTOR_INDEXING), tenant="evil"), rows) == []


async def test_the_next_generation_has_its_own_end() -> None:
    rows: dict[bytes, ImageRow] = {}
    for each in good_way():
        await process(each, rows)
    ends = []
    for each in good_way():
        each.generation = 2
        ends += [m.event.eventId for m in await process(each, rows) if m.topic is COMPLETED]
    assert len(ends) == 1
    failed = report(Step.FEATURE_EXTRACTION, StepStatus.FAILED, "other")
    assert await process(event(failed), rows) != []
    assert rows[IMAGE.encode()].status == "completed"


async def test_a_table_that_fails_is_waited_for() -> None:
    class FullDisk(dict[bytes, Any]):
        def __setitem__(self, key: bytes, value: ImageRow) -> None:
            raise OSError("No space left on device")

    with pytest.raises(TableUnavailable) as caught:
        await process(good_way()[0], FullDisk())
    assert caught.value.retryable
