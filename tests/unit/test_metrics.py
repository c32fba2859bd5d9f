"""Labels of what comes from topics, which take anybody's events."""

import uuid
from typing import Any

import pytest
from prometheus_client import REGISTRY

from agents import dead_letters, notifications
from deeplens_streams.broker.topology import STAGES
from deeplens_streams.config import load_settings
from deeplens_streams.errors import UndecodableImage
from deeplens_streams.pipeline import stage
from deeplens_streams.pipeline.dead_letters import count_read
from deeplens_streams.runtime.apps import build_apps
from models.events import (
    ProcessingCompleted,
    ProcessingCompletedData,
    ProcessingFailed,
    ProcessingFailedData,
    utc_now,
)
from tests.support.killed_systems import Fuse, System

LETTERS = "deeplens_dead_letters_read_total"


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def series(name: str) -> int:
    return sum(sample.name == name for metric in REGISTRY.collect() for sample in metric.samples)


async def test_forged_letters_make_no_series() -> None:
    services = System(Fuse()).services
    count_read("other", "other")
    before, at = series(LETTERS), value(LETTERS, step="other", code="other")
    for _ in range(20):
        forged = ProcessingFailed(
            eventType=ProcessingFailed.EVENT_TYPE,
            eventId=str(uuid.uuid4()),
            timestamp=utc_now(),
            tenantId="demo",
            correlationId="",
            data=ProcessingFailedData(
                imageId=None,
                failedStep=uuid.uuid4().hex,
                errorCode=uuid.uuid4().hex,
                errorMessage="forged",
            ),
        )
        await dead_letters.process(forged, services)
    assert series(LETTERS) == before
    assert value(LETTERS, step="other", code="other") == at + 20


def test_letters_of_ours_are_counted_by_step_and_code() -> None:
    labels = {"step": "feature_extraction", "code": UndecodableImage.code}
    before = value(LETTERS, **labels)
    count_read(**labels)
    assert value(LETTERS, **labels) == before + 1


def test_every_stage_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    names: set[str] = set()
    init = stage.Stage.__init__

    def noted(self: stage.Stage[Any], *, name: str, **kwargs: Any) -> None:
        names.add(name)
        init(self, name=name, **kwargs)

    monkeypatch.setattr(stage.Stage, "__init__", noted)
    build_apps(load_settings())
    assert sorted(names) == sorted(each.name for each in STAGES)


async def test_forged_ends_make_no_series() -> None:
    name = "deeplens_processing_seconds_count"

    async def end(status: str) -> None:
        data = ProcessingCompletedData(
            imageId="img_1",
            status=status,
            totalProcessingTimeMs=5.0,
            searchableAfter=utc_now(),
            processingSteps=[],
        )
        await notifications.process(
            ProcessingCompleted(
                eventType=ProcessingCompleted.EVENT_TYPE,
                eventId=str(uuid.uuid4()),
                timestamp=utc_now(),
                tenantId="demo",
                correlationId="",
                data=data,
            )
        )

    for status in ("success", "partial", "other"):
        await end(status)
    before = series(name)
    await end(uuid.uuid4().hex)
    assert series(name) == before
