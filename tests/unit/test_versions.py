"""What only a newer version knows passes through this one unharmed: docs/upgrading.md."""

import copy
from typing import Any, get_args, get_origin, get_type_hints

import faust
import orjson
import pytest

from agents import status_events
from agents.dead_letters import _letter as kept_letter
from deeplens_streams.broker import codec
from deeplens_streams.errors import MalformedEvent, NewerVersion
from deeplens_streams.interactive_queries.table_pages import _wire
from deeplens_streams.pipeline.dead_letters import dead_letter, unreadable
from deeplens_streams.pipeline.progress import progress
from deeplens_streams.web.handlers.api_keys import shown
from deeplens_streams.web.openapi.record_schemas import nested_records
from models.admin import AdminAction
from models.deletion import ImageDeleted, TenantPurge, Tombstone
from models.events import (
    Event,
    FeatureExtractionRequested,
    ImageUploaded,
    ProcessingCompleted,
    ProcessingFailed,
    ProcessingFailedData,
    VectorIndexingRequested,
)
from models.images import StoredImage
from models.letters import DeadLetter
from models.records import MAX_CARRIED_BYTES, MalformedRecord, StoredRecord, WireRecord
from models.status import (
    Ending,
    ImageProgress,
    ImageProgressData,
    ImageRow,
    ImageState,
    ImageStatusChanged,
    Step,
    StepReport,
)
from models.tenants import ChangeKind, Limits, Tenant, TenantChange, TenantChanged, TenantRecord
from models.trash import TrashManifest
from tables.image_steps import MAX_UNKNOWN_STEPS
from tables.tenants import changed
from tests.support.progress import event, good_way, joined, report, run
from tests.support.stage_messages import incoming
from tests.support.tenant_changes import after, tenant
from tests.support.tenant_changes import event as change

EVENTS: list[type[Event]] = [
    ImageUploaded,
    FeatureExtractionRequested,
    VectorIndexingRequested,
    ProcessingCompleted,
    ProcessingFailed,
    ImageProgress,
    ImageStatusChanged,
    ImageDeleted,
    TenantChange,
    TenantChanged,
]
STORED: list[type[StoredRecord]] = [
    ImageRow,
    Tenant,
    TenantRecord,
    StoredImage,
    Tombstone,
    TenantPurge,
    DeadLetter,
    AdminAction,
    TrashManifest,
]
NEWS = {"future": {"a": [1, {"b": None}]}}
#: What a field of that type holds in these tests.
VALUES: dict[Any, Any] = {str: "text", int: 3, float: 1.5, bool: True, Any: {"any": 1}}


def of_a_newer_version(record: type[WireRecord]) -> dict[str, Any]:
    """Return data of every field of a record, with one more in it and in each inside it."""
    hints = get_type_hints(record)
    known = {name: _value(hints[name]) for name in record._options.fields}
    if "schemaVersion" in known:
        known["schemaVersion"] = "1.9"
    return {**known, **copy.deepcopy(NEWS)}


def _value(hint: Any) -> Any:
    inner = [each for each in get_args(hint) if each is not type(None)]
    if get_origin(hint) is list:
        return [_value(inner[0])]
    if get_origin(hint) is dict:
        return {"key": _value(inner[1])}
    if inner:
        return _value(inner[0])
    if isinstance(hint, type) and issubclass(hint, WireRecord):
        return of_a_newer_version(hint)
    return VALUES[hint]


@pytest.mark.parametrize("record", [*EVENTS, *STORED])
def test_unknown_fields_are_written_again_at_any_depth(record: type[WireRecord]) -> None:
    data = of_a_newer_version(record)
    assert record.from_wire(copy.deepcopy(data)).to_wire() == data


def test_these_are_all_records_there_are() -> None:
    tried = {inner for record in (*EVENTS, *STORED) for inner in nested_records(record)}
    assert set(_concrete(WireRecord)) <= tried


def _concrete(base: type[WireRecord]) -> list[type[WireRecord]]:
    ours = [each for each in base.__subclasses__() if each.__module__.startswith("models.")]
    found = [inner for each in ours for inner in _concrete(each)]
    is_abstract = base._options is None or base.__is_abstract__
    return found if is_abstract else [base, *found]


@pytest.mark.parametrize("record", [ImageRow, Tenant])
def test_a_row_goes_through_a_table_and_its_changelog_with_all_that_it_has(
    record: type[StoredRecord],
) -> None:
    data = of_a_newer_version(record)
    app = faust.App("of-this-test", broker="memory://", value_serializer="json")
    written = app.serializers.dumps_value(record, record.from_wire(data), serializer="json")
    assert written is not None
    assert orjson.loads(written) == data
    read = app.serializers.loads_value(record, written, serializer="json")
    assert read == record.from_wire(data)
    assert read.to_wire() == data


def test_records_that_differ_in_what_nobody_knows_are_not_equal() -> None:
    one, other = Limits(images=1), Limits.from_wire({"images": 1, "albums": 3})
    assert one == Limits(images=1)
    assert one != other
    assert copy.deepcopy(other) == other


def test_a_field_without_a_name_of_ours_never_takes_the_place_of_one() -> None:
    upload = ImageUploaded.from_wire(
        {**of_a_newer_version(ImageUploaded), "retryPolicy": {"maxAttempts": 99}, "data": _upload()}
    )
    following = FeatureExtractionRequested.following(upload, None)
    assert following.retryPolicy is None
    assert following.unknown_fields["future"] == NEWS["future"]
    assert following.to_wire()["retryPolicy"] is None


def _upload() -> dict[str, Any]:
    image = "img_98765432-4321-4321-4321-210987654321"
    return {"imageId": image, "fileName": "a", "filePath": "a", "fileSize": 1, "contentType": "x"}


def test_what_is_in_the_envelope_goes_on_with_every_event_that_follows() -> None:
    upload = ImageUploaded.from_wire({**of_a_newer_version(ImageUploaded), "data": _upload()})
    said = progress(upload, [report(Step.IMAGE_PROCESSING)]).event
    assert codec.encode(said).count(b'"future"') == 1
    upload.carrying(ImageUploaded.from_wire(upload.to_wire() | {"more": "x" * MAX_CARRIED_BYTES}))
    assert "more" not in upload.unknown_fields


def test_answers_show_only_what_this_version_knows() -> None:
    row = Tenant.from_wire(of_a_newer_version(Tenant))
    assert "future" not in shown(row.keys[0])
    assert "future" not in _wire(row)["keys"][0]
    letter = DeadLetter.from_wire(of_a_newer_version(DeadLetter))
    assert not {"future", "schemaVersion"} & letter.known_fields().keys()
    assert "future" not in str(row.known_fields())


# The status table ------------------------------------------------------------------------------


def newer_row(status: str = "awaiting_review") -> ImageRow:
    row, _ = run(good_way()[:4])
    data = row.to_wire()
    data["steps"].append(_step("face_detection"))
    data["steps"][0]["node"] = "gpu-3"
    return ImageRow.from_wire(data | {"status": status, "schemaVersion": "1.9", "faces": 2})


def _step(name: str, status: str = "pending", **more: Any) -> dict[str, Any]:
    known = StepReport(step=str(name), status=status, at="2026-01-01T00:00:02.000Z").to_wire()
    return known | more


def reported(*steps: dict[str, Any], generation: int = 1) -> ImageProgress:
    return event(*(StepReport.from_wire(each) for each in steps), generation=generation)


def test_a_row_keeps_what_only_a_newer_version_knows() -> None:
    row = joined(newer_row(), reported(_step(Step.THUMBNAIL_GENERATION, "completed")))
    assert row is None, "that was known"
    later = _step(Step.VECTOR_INDEXING, "retrying", modelName="other", node="gpu-1")
    row = joined(newer_row(), reported(later))
    assert row is not None
    assert (row.schemaVersion, row.unknown_fields) == ("1.9", {"faces": 2})
    assert row.status == "awaiting_review"
    assert [step.step for step in row.steps][-1] == "face_detection"
    nodes = [step.unknown_fields.get("node") for step in row.steps]
    assert {each for each in nodes if each} == {"gpu-3", "gpu-1"}
    announced = status_events.changed(row)
    assert codec.decode(ImageStatusChanged, codec.encode(announced)).data == row


@pytest.mark.parametrize("status", ["pending", "failed", "completed", "paused"])
def test_a_step_that_is_not_known_neither_ends_a_row_nor_holds_it_up(status: str) -> None:
    extra = _step("face_detection", status, errorCode="NO_FACE", score=0.5)
    for number in range(6):
        events = good_way()
        events.insert(number, reported(extra))
        row, states = run(events)
        assert row.status == ImageState.COMPLETED
        assert states.count("completed") == 1 + (number == 5)  # kept behind the end, too
        assert row.errorCode is None
        kept = row.steps[-1]
        assert (kept.step, kept.status, kept.unknown_fields) == (
            "face_detection",
            status,
            {"score": 0.5},
        )


def test_what_is_said_of_unknown_steps_comes_out_the_same_in_any_order() -> None:
    said = [
        reported(_step("face_detection", "pending")),
        reported(_step("face_detection", "completed")),
        reported(_step("virus_scan", "completed")),
    ]
    first, _ = run([*said, *good_way()])
    second, _ = run([*good_way(), *reversed(said)])
    assert [step.to_wire() for step in first.steps] == [step.to_wire() for step in second.steps]
    assert [step.step for step in first.steps][-2:] == ["face_detection", "virus_scan"]


def test_a_retry_leaves_unknown_steps_alone() -> None:
    row, _ = run([*good_way(), reported(_step("virus_scan", "completed"))])
    again = joined(row, event(report(Step.IMAGE_PROCESSING), generation=2))
    assert again is not None
    assert [step.step for step in again.steps][-1] == "virus_scan"
    later = joined(again, reported(_step("virus_scan", "pending"), generation=3))
    assert later is not None
    assert "image_processing" in [step.step for step in later.steps]


def test_an_unknown_status_of_a_known_step_is_kept_until_a_known_end() -> None:
    row, _ = run(
        [*good_way()[:4], reported(_step(Step.VECTOR_INDEXING, "queued", modelName="other"))]
    )
    assert row.status == ImageState.PROCESSING
    assert "queued" in {step.status for step in row.steps}
    row = joined(row, good_way()[4])  # type: ignore[assignment]
    assert row.status == ImageState.COMPLETED


def test_an_unknown_state_stays_until_known_steps_end() -> None:
    row = joined(newer_row(), reported(_step("face_detection", "completed")))
    assert row is not None
    assert row.status == "awaiting_review"
    done = joined(row, good_way()[4])
    assert done is not None
    assert done.status == ImageState.COMPLETED
    # One that came behind that end is not this version's to take back.
    done.status = "archived"
    kept = joined(done, reported(_step("face_detection", "failed")))
    assert kept is None  # completed says more than failed
    kept = joined(done, reported(_step("virus_scan", "failed")))
    assert kept is not None
    assert kept.status == "archived"
    again = joined(kept, event(report(Step.IMAGE_PROCESSING), generation=2))
    assert again is not None
    assert again.status == ImageState.PROCESSING


def test_of_a_deleted_picture_nothing_stays_that_nobody_can_read() -> None:
    ending = ImageProgress.new(
        "acme-corp",
        ImageProgressData(imageId=newer_row().imageId, reports=[], ending=Ending.DELETED),
        correlationId="corr",
    )
    row = joined(newer_row(), ending)
    assert row is not None
    assert (row.status, row.steps, row.unknown_fields) == (ImageState.DELETED, [], {})


def test_an_end_that_is_not_known_ends_nothing() -> None:
    ending = ImageProgress.new(
        "acme-corp",
        ImageProgressData(imageId=newer_row().imageId, reports=[], ending="archived"),
        correlationId="corr",
    )
    with pytest.raises(NewerVersion):
        joined(newer_row(), ending)


def test_a_letter_keeps_what_a_newer_stage_says_of_a_failure() -> None:
    said = ProcessingFailed.from_wire(
        {
            "eventType": "processing.failed",
            "tenantId": "a",
            "correlationId": "c",
            "data": of_a_newer_version(ProcessingFailedData),
        }
    )
    assert kept_letter(said).unknown_fields == NEWS


@pytest.mark.parametrize("name", ["", "Face", "face detection", "x" * 61, "../x"])
def test_what_cannot_be_a_step_is_refused(name: str) -> None:
    with pytest.raises(MalformedEvent):
        joined(None, reported(_step(name)))
    with pytest.raises(MalformedEvent):
        joined(None, reported(_step(Step.IMAGE_PROCESSING, name)))


def test_a_row_does_not_grow_without_end() -> None:
    many = [_step("face_detection", modelName=f"m{number}") for number in range(MAX_UNKNOWN_STEPS)]
    row = joined(None, reported(*many))
    assert row is not None
    with pytest.raises(MalformedEvent):
        joined(row, reported(_step("one_more")))
    assert joined(row, reported(_step("face_detection", "completed", modelName="m1"))) is not None


# Tenants ---------------------------------------------------------------------------------------


def test_a_change_of_limits_keeps_those_of_a_newer_version() -> None:
    row = Tenant.from_wire(tenant(images=3).to_wire() | {"tier": "gold"})
    row.limits = Limits.from_wire({"images": 3, "albums": 7})
    row = after(row, change(ChangeKind.LIMIT, limits=Limits(images=5)))
    assert row.limits.to_wire() == Limits(images=5).to_wire() | {"albums": 7}
    assert row.unknown_fields == {"tier": "gold"}
    assert row.limits.over(Limits.from_wire({"bytes": 9, "albums": 1})).bytes == 9
    suspended = changed(row, change(ChangeKind.SUSPEND))
    assert suspended is not None
    assert suspended.unknown_fields == {"tier": "gold"}


# Versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", STORED)
def test_a_newer_major_version_of_what_is_kept_is_refused(record: type[StoredRecord]) -> None:
    data = of_a_newer_version(record)
    assert record.from_wire(data | {"schemaVersion": "1.99"}).schemaVersion == "1.99"
    del data["schemaVersion"]  # as it was written before there were any
    assert record.from_wire(data).schemaVersion == "1.0"
    with pytest.raises(MalformedRecord, match=r"schemaVersion is '2\.0', and this system reads 1"):
        record.from_wire({"schemaVersion": "2.0"})


def test_an_event_of_a_newer_major_version_becomes_a_letter_that_can_be_retried() -> None:
    whole = {"eventVersion": "2.0", "tenantId": "acme-corp", "data": {"picture": {"id": 1}}}
    with pytest.raises(NewerVersion) as raised:
        codec.decode(ImageProgress, orjson.dumps(whole))
    message = incoming(orjson.dumps(whole))
    letter = unreadable("status_tracking", message, raised.value).event.data
    assert (letter.errorCode, letter.canRetry) == ("NEWER_VERSION", True)
    assert letter.originalEvent == whole


def test_a_change_that_is_not_known_becomes_a_letter_that_can_be_retried() -> None:
    unknown = change(ChangeKind.CREATE)
    unknown.data = type(unknown.data).from_wire({"kind": "merge", "into": "other"})
    said = dead_letter("tenants", unknown, NewerVersion(), 1, incoming(b""))
    letter = said.event.data
    assert (letter.errorCode, letter.canRetry) == ("NEWER_VERSION", True)
    assert letter.originalEvent["data"]["into"] == "other"
