"""When a child process counts as one that does not answer."""

import pytest

from deeplens_streams.errors import ExtractorUnavailable
from deeplens_streams.features.child.heartbeat import Heartbeat


def heartbeat() -> Heartbeat:
    return Heartbeat(look_s=1.0, idle_s=4.0, busy_s=15.0)


def test_one_ping_is_under_way_at_a_time() -> None:
    beat = heartbeat()
    assert beat.look() == 1
    assert [beat.look() for _ in range(3)] == [None] * 3
    beat.answered(1)
    assert beat.silent_s == 0
    assert beat.look() == 2


def test_who_does_not_answer_is_away_until_it_does() -> None:
    beat = heartbeat()
    beat.check(is_busy=False)
    number = beat.look()
    assert number is not None
    for _ in range(4):
        beat.look()
        beat.check(is_busy=False)
    beat.look()
    with pytest.raises(ExtractorUnavailable, match="has not answered for 5 s"):
        beat.check(is_busy=False)
    beat.check(is_busy=True)
    for _ in range(11):
        beat.look()
    with pytest.raises(ExtractorUnavailable, match="16 s"):
        beat.check(is_busy=True)
    beat.answered(number)
    beat.check(is_busy=False)


def test_an_answer_of_a_former_process_is_none() -> None:
    beat = heartbeat()
    before = beat.look()
    assert before is not None
    beat.restart()
    assert beat.look() == before + 1
    beat.look()
    beat.answered(before)
    assert beat.silent_s == 1
