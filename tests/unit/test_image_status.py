"""The status row is the same in whatever order, and however often, reports come."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.status import (
    FINAL_STATES,
    STEP_RANK,
    Ending,
    ImageProgress,
    ImageRow,
    ImageState,
    Step,
    StepReport,
    StepStatus,
)
from tables.image_status import completed_event_id
from tests.support.progress import MODELS, NOW, event, good_way, joined, report, run


def essence(row: ImageRow) -> tuple[object, ...]:
    return (row.status, row.generation, row.models, [step.to_wire() for step in row.steps])


def test_a_row_follows_from_the_one_before_the_event_and_the_time_alone() -> None:
    """Nothing that goes in is changed, and the same makes the same row."""
    for before in (None, run(good_way()[:2])[0]):
        said = event(report(Step.VECTOR_INDEXING, model="resnet50"), generation=2)
        told, was = said.to_wire(), None if before is None else before.to_wire()
        row = joined(before, said)
        assert row is not None
        assert (said.to_wire(), None if before is None else before.to_wire()) == (told, was)
        assert row.lastUpdated == NOW
        assert [each.generation for each in row.steps if each.step == Step.VECTOR_INDEXING] == [2]
        again = joined(before, said)
        assert again is not None
        assert again.to_wire() == row.to_wire()


def test_the_way_of_a_good_picture() -> None:
    row, states = run(good_way())
    assert states == ["processing"] * 4 + ["completed"]
    assert row.searchableAfter == "2026-01-01T00:00:01.000Z"
    assert row.errorCode is None


@settings(max_examples=60, deadline=None)
@given(st.permutations(good_way()), st.randoms(use_true_random=False))
def test_order_and_repeats_do_not_matter(
    events: list[ImageProgress], chance: random.Random
) -> None:
    repeated = [each for each in events for _ in range(chance.choice((1, 2)))]
    row, states = run(repeated)
    assert essence(row) == essence(run(good_way())[0])
    assert states.count("completed") == 1


def test_one_model_of_two_failed_is_partial() -> None:
    events = [*good_way()[:-1], event(report(Step.VECTOR_INDEXING, StepStatus.FAILED, "other"))]
    row, _ = run(events)
    assert row.status == "partial"
    assert row.errorCode == "UNDECODABLE_IMAGE"


def test_no_vector_is_failed_with_the_reason() -> None:
    failed = [event(report(Step.FEATURE_EXTRACTION, StepStatus.FAILED, m)) for m in MODELS]
    row, _ = run([good_way()[0], *failed])
    assert row.status == "failed"
    assert row.errorCode == "UNDECODABLE_IMAGE"
    assert row.searchableAfter is None


def test_a_failure_that_arrives_before_the_first_report_waits_for_it() -> None:
    early = event(report(Step.FEATURE_EXTRACTION, StepStatus.FAILED, "resnet50"))
    early.data.models = early.data.uploadedAt = None
    first = event(report(Step.IMAGE_PROCESSING))
    first.data.models = ["resnet50"]
    row, states = run([early, first])
    assert states == ["processing", "failed"]
    assert row.models == ["resnet50"]


def test_a_failed_preparation_is_the_end() -> None:
    row, _ = run([event(report(Step.IMAGE_PROCESSING, StepStatus.FAILED))])
    assert row.status == "failed"


def test_a_step_never_goes_back() -> None:
    row, _ = run(good_way())
    for status in (StepStatus.PENDING, StepStatus.IN_PROGRESS, StepStatus.RETRYING):
        late = event(report(Step.VECTOR_INDEXING, status, "resnet50"))
        assert joined(row, late) is None


def test_a_higher_generation_reopens_and_a_lower_one_is_ignored() -> None:
    row, _ = run([event(report(Step.IMAGE_PROCESSING, StepStatus.FAILED))])
    again = joined(row, event(report(Step.IMAGE_PROCESSING), generation=2))
    assert again is not None
    assert (again.status, again.generation) == ("processing", 2)
    assert again.errorCode is None
    assert joined(again, event(report(Step.FEATURE_EXTRACTION, model="other"))) is None
    assert completed_event_id(row) != completed_event_id(again)


def processed_again(row: ImageRow, *reports: StepReport) -> list[ImageRow]:
    """Return the row behind each report of the next generation."""
    rows = []
    for each in reports:
        after = joined(row, event(each, generation=2))
        assert after is not None
        row = after
        rows.append(row)
    return rows


def whole_way() -> list[StepReport]:
    reports = [report(Step.IMAGE_PROCESSING, StepStatus.PENDING), report(Step.IMAGE_PROCESSING)]
    reports.append(report(Step.THUMBNAIL_GENERATION))
    for model in MODELS:
        reports += [report(Step.FEATURE_EXTRACTION, model=model)]
        reports += [report(Step.VECTOR_INDEXING, model=model)]
    return reports


def test_what_failed_completes_when_it_is_processed_from_its_beginning() -> None:
    failed = [event(report(Step.FEATURE_EXTRACTION, StepStatus.FAILED, m)) for m in MODELS]
    row, _ = run([good_way()[0], *failed])
    states = [each.status for each in processed_again(row, *whole_way())]
    assert states == ["processing"] * 6 + ["completed"]


def test_steps_of_an_earlier_run_do_not_end_a_later_one() -> None:
    row, _ = run(good_way())
    rows = processed_again(row, *whole_way())
    assert [each.status for each in rows] == ["processing"] * 6 + ["completed"]
    assert rows[0].searchableAfter is None
    # From the step that failed on; what came before it stays.
    lost = event(report(Step.FEATURE_EXTRACTION, StepStatus.FAILED, "other"), generation=2)
    failed = joined(rows[1], lost)
    assert failed is not None
    again = joined(
        failed, event(report(Step.FEATURE_EXTRACTION, StepStatus.PENDING, "other"), generation=3)
    )
    assert again is not None
    assert (again.status, again.errorCode) == ("processing", None)
    assert [step.generation for step in again.steps] == [2, 3]


def waits(reason: str, second: int, attempt: int = 1) -> ImageProgress:
    said = report(Step.VECTOR_INDEXING, StepStatus.RETRYING, "resnet50")
    said.errorCode, said.at, said.attempt = reason, f"2026-01-01T00:00:{second:02}.000Z", attempt
    return event(said)


@settings(max_examples=60, deadline=None)
@given(
    # Behind a crash, attempts begin anew.
    st.permutations([waits("first", 1, attempt=2), waits("second", 2), waits("third", 3)]),
    st.randoms(use_true_random=False),
)
def test_a_step_says_what_it_waits_for_last(
    waiting: list[ImageProgress], chance: random.Random
) -> None:
    row, _ = run([good_way()[0], *(each for each in waiting for _ in range(chance.choice((1, 2))))])
    (said,) = [step for step in row.steps if step.status == StepStatus.RETRYING]
    assert (said.errorCode, said.attempt) == ("third", 1)
    after = joined(row, event(report(Step.VECTOR_INDEXING, model="resnet50")))
    assert after is not None
    assert joined(after, waits("late", 59)) is None


def test_what_failed_keeps_its_reason_until_it_is_retried() -> None:
    failed = event(report(Step.IMAGE_PROCESSING, StepStatus.FAILED))
    # The event came again, because of a crash, and succeeded.
    row, _ = run([failed, *good_way()])
    assert (row.status, row.errorCode) == ("failed", "UNDECODABLE_IMAGE")
    assert row.steps[0].status == StepStatus.FAILED  # which is what a retry looks for


def test_another_tenants_report_changes_nothing() -> None:
    row, _ = run(good_way()[:2])
    assert joined(row, event(report(Step.VECTOR_INDEXING, model="other"), tenant="evil")) is None


def test_a_deleted_picture_stays_deleted() -> None:
    row, _ = run(good_way())
    row.status = ImageState.DELETED.value
    assert joined(row, event(report(Step.IMAGE_PROCESSING), generation=9)) is None


def test_every_status_of_a_step_has_a_rank() -> None:
    assert set(STEP_RANK) == set(StepStatus)


#: Allowed moves of the whole picture within one generation, derived states included.
#: A higher generation may move from any state but ``deleted`` to ``processing``.
TRANSITIONS: dict[ImageState, frozenset[ImageState]] = {
    ImageState.UPLOADED: FINAL_STATES | {ImageState.PROCESSING},
    ImageState.PROCESSING: FINAL_STATES,
    ImageState.COMPLETED: frozenset({ImageState.DELETED}),
    ImageState.PARTIAL: frozenset({ImageState.DELETED}),
    ImageState.FAILED: frozenset({ImageState.DELETED}),
    ImageState.DELETED: frozenset(),
}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Step)),
            st.sampled_from(list(StepStatus)),
            st.sampled_from(MODELS),
            st.integers(1, 3),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_every_move_is_in_the_table_of_transitions(
    moves: list[tuple[Step, StepStatus, str, int]],
) -> None:
    row: ImageRow | None = None
    for step, status, model, generation in moves:
        per_model = step in (Step.FEATURE_EXTRACTION, Step.VECTOR_INDEXING)
        after = joined(
            row, event(report(step, status, model if per_model else None), generation=generation)
        )
        if after is None:
            continue
        if row is not None and after.generation == row.generation and after.status != row.status:
            assert after.status in TRANSITIONS[ImageState(row.status)]
        row = after


@pytest.mark.parametrize("state", list(ImageState))
def test_every_state_has_its_place_in_the_contract(state: ImageState) -> None:
    assert state.value in ["uploaded", "processing", "completed", "failed", "partial", "deleted"]


def ended(ending: Ending, tenant: str = "acme-corp") -> ImageProgress:
    made = event(tenant=tenant)
    made.data.ending = ending.value
    return made


def test_a_deletion_wins_over_everything_before_and_after() -> None:
    row = None
    for each in good_way():
        row = joined(row, each) or row
    row = joined(row, ended(Ending.DELETED))
    assert row is not None
    assert (row.status, row.steps, row.models) == (ImageState.DELETED, [], [])
    for each in [*good_way(), event(report(Step.IMAGE_PROCESSING), generation=7)]:
        assert joined(row, each) is None
    fresh = joined(None, ended(Ending.DELETED))
    assert fresh is not None
    assert fresh.status == ImageState.DELETED


def test_a_dropped_picture_ends_the_row_that_it_has_alone() -> None:
    assert joined(None, ended(Ending.DROPPED)) is None
    row = joined(None, event(report(Step.IMAGE_PROCESSING)))
    assert joined(row, ended(Ending.DROPPED, tenant="evil-corp")) is None
    after = joined(row, ended(Ending.DROPPED))
    assert after is not None
    assert after.status == ImageState.DELETED
