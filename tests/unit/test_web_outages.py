"""What pictures wait for is learnt from those in hand, and holds for those behind them."""

import time
from typing import Any

import orjson
import pytest

from deeplens_streams.broker import codec
from deeplens_streams.config import load_settings
from deeplens_streams.errors import ExtractorUnavailable, VectorsUnavailable
from deeplens_streams.status.feed import KafkaStatusFeed
from deeplens_streams.status.outages import FORGET_S, Outages
from models.status import ImageRow, ImageStatusChanged, Step, StepReport, StepStatus
from tests.support.web_server import report, row_of

MODEL = "resnet50"
EXTRACTION = (Step.FEATURE_EXTRACTION.value, MODEL)
INDEXING = (Step.VECTOR_INDEXING.value, MODEL)
AWAY = ExtractorUnavailable.code


def step(
    name: Step, status: StepStatus, second: int = 0, code: str | None = None, model: str = MODEL
) -> StepReport:
    per_model = name in (Step.FEATURE_EXTRACTION, Step.VECTOR_INDEXING)
    return report(
        name,
        status,
        modelName=model if per_model else None,
        errorCode=code,
        errorMessage=f"{code} of somebody" if code else None,
        at=f"2026-01-01T00:00:{second:02}.000Z",
    )


PREPARED = step(Step.IMAGE_PROCESSING, StepStatus.COMPLETED)


def waits(second: int = 10, code: str = AWAY, image: str = "in-hand") -> ImageRow:
    """Return the row of a picture that extraction has in hand."""
    said = step(Step.FEATURE_EXTRACTION, StepStatus.RETRYING, second, code)
    return row_of(image, "processing", [PREPARED, said])


def ended(status: StepStatus, second: int) -> ImageRow:
    return row_of("other", "processing", [PREPARED, step(Step.FEATURE_EXTRACTION, status, second)])


def behind(*steps: StepReport, **more: Any) -> ImageRow:
    return row_of("behind", "processing", [PREPARED, *steps], **more)


@pytest.fixture
def known() -> Outages:
    return Outages()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    reading = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: reading[0])
    return reading


def test_who_comes_next_waits_for_the_same(known: Outages) -> None:
    assert known.reasons(behind()) == {}
    known.look(waits().to_wire())
    assert known.reasons(behind()) == {EXTRACTION: ExtractorUnavailable().message}


def test_nobody_reads_what_was_said_of_anothers_picture(known: Outages) -> None:
    """It may name the other's tenant."""
    known.look(waits().to_wire())
    assert "somebody" not in str(known.reasons(behind()))


@pytest.mark.parametrize(
    "row",
    [
        row_of("fresh", "uploaded", []),
        behind(step(Step.FEATURE_EXTRACTION, StepStatus.RETRYING, 1, "INTERNAL")),
        behind(step(Step.FEATURE_EXTRACTION, StepStatus.COMPLETED)),
        behind(models=["other"]),
        row_of("failed", "failed", [step(Step.IMAGE_PROCESSING, StepStatus.FAILED)]),
    ],
)
def test_who_is_elsewhere_does_not_wait_for_it(known: Outages, row: ImageRow) -> None:
    known.look(waits().to_wire())
    assert known.reasons(row) == {}


def test_each_step_and_model_has_its_reason(known: Outages) -> None:
    known.look(waits().to_wire())
    stored = [
        step(Step.FEATURE_EXTRACTION, StepStatus.COMPLETED),
        step(Step.VECTOR_INDEXING, StepStatus.RETRYING, 1, VectorsUnavailable.code),
    ]
    known.look(behind(*stored).to_wire())
    assert known.reasons(behind(stored[0])) == {INDEXING: VectorsUnavailable().message}
    retried = step(Step.FEATURE_EXTRACTION, StepStatus.PENDING)
    assert known.reasons(behind(retried)).keys() == {EXTRACTION}
    both = behind(
        step(Step.FEATURE_EXTRACTION, StepStatus.COMPLETED, model="b"), models=["b", MODEL]
    )
    assert known.reasons(both).keys() == {EXTRACTION}


def test_the_first_step_may_wait_too(known: Outages) -> None:
    first = step(Step.IMAGE_PROCESSING, StepStatus.RETRYING, 1, "STORAGE_UNAVAILABLE")
    known.look(row_of("in-hand", "processing", [first], models=[]).to_wire())
    fresh = row_of("fresh", "uploaded", [])
    assert known.reasons(fresh).keys() == {(Step.IMAGE_PROCESSING.value, None)}
    assert known.reasons(behind()) == {}


@pytest.mark.parametrize("code", [None, "INTERNAL", "UNDECODABLE_IMAGE"])
def test_a_picture_whose_own_attempt_failed_is_no_outage(known: Outages, code: str) -> None:
    known.look(waits(code=code).to_wire())
    assert not known.are_any


@pytest.mark.parametrize("status", [StepStatus.COMPLETED, StepStatus.FAILED])
def test_it_is_over_when_a_picture_is_at_the_end_of_the_step(
    known: Outages, status: StepStatus
) -> None:
    known.look(waits(10).to_wire())
    known.look(ended(status, 9).to_wire())
    assert known.reasons(behind()) != {}, "that was before"
    known.look(ended(status, 11).to_wire())
    assert known.reasons(behind()) == {}
    assert not known.are_any


def test_a_row_that_comes_late_begins_no_outage_that_is_over(known: Outages) -> None:
    known.look(waits(10).to_wire())
    known.look(ended(StepStatus.COMPLETED, 12).to_wire())
    known.look(waits(11, image="in-hand-elsewhere").to_wire())
    assert known.reasons(behind()) == {}
    known.look(waits(13).to_wire())
    assert known.reasons(behind()) != {}


def test_the_last_reason_holds(known: Outages) -> None:
    known.look(waits(10, "STORAGE_UNAVAILABLE").to_wire())
    known.look(waits(12).to_wire())
    known.look(waits(11, "STORAGE_UNAVAILABLE").to_wire())
    assert known.reasons(behind()) == {EXTRACTION: ExtractorUnavailable().message}


def test_without_news_it_is_forgotten(known: Outages, clock: list[float]) -> None:
    known.look(waits(10).to_wire())
    clock[0] += FORGET_S - 1
    known.look(waits(10).to_wire())  # a row that changed elsewhere is no news
    assert known.reasons(behind()) != {}
    known.look(waits(11).to_wire())
    clock[0] += FORGET_S - 1
    assert known.reasons(behind()) != {}
    clock[0] += 1
    assert known.reasons(behind()) == {}
    assert not known.are_any


def changed(row: ImageRow) -> bytes:
    return codec.encode(
        ImageStatusChanged(
            eventType=ImageStatusChanged.EVENT_TYPE,
            tenantId=row.tenantId,
            correlationId=row.correlationId,
            data=row,
        )
    )


IDS = [f"img_{number:08}-4321-4321-4321-210987654321" for number in range(3)]


async def test_the_feed_looks_at_rows_that_nobody_watches() -> None:
    feed = KafkaStatusFeed(load_settings())
    seen: list[ImageRow] = []
    feed.on_change(seen.append)
    feed._hand_out(changed(waits(image=IDS[0])))
    assert feed.outages.reasons(behind()).keys() == {EXTRACTION}
    row = ended(StepStatus.COMPLETED, 59)
    row.imageId = IDS[1]
    feed._hand_out(changed(row))
    assert not feed.outages.are_any
    assert seen == []


@pytest.mark.parametrize("steps", [None, {}, ["x"], [{}], [{"step": [], "status": "retrying"}]])
async def test_the_feed_outlives_a_row_that_is_none(steps: Any) -> None:
    feed = KafkaStatusFeed(load_settings())
    feed._hand_out(changed(waits(image=IDS[0])))
    data = {"imageId": IDS[1], "status": "processing", "steps": steps}
    feed._hand_out(orjson.dumps({"data": data}))
    assert feed.outages.are_any
