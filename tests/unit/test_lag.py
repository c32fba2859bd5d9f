"""What the last reading of consumer lag is worth."""

import time
from pathlib import Path

import pytest

from deeplens_streams import lag
from deeplens_streams.config import load_settings
from deeplens_streams.lag import LagReader, _Reading
from deeplens_streams.topics import PROGRESS, UPLOADED


@pytest.fixture
def reader(tmp_path: Path) -> LagReader:
    return LagReader(load_settings(data_dir=tmp_path, weights="untrained"))


def reading(seconds_ago: float, *, waiting: int, indexed: int) -> _Reading:
    counts = {(UPLOADED, 0): waiting, (PROGRESS, 0): 7}
    return _Reading(time.monotonic() - seconds_ago, counts, indexed)


def test_before_the_first_reading_nothing_is_known(reader: LagReader) -> None:
    assert (reader.waiting, reader.unread, reader.drain_rate) == (None, None, None)


def test_a_reading_says_what_waits_and_two_how_fast_it_drains(reader: LagReader) -> None:
    reader._note(reading(4, waiting=5, indexed=100))
    reader._note(reading(0, waiting=3, indexed=140))
    assert (reader.waiting, reader.unread) == (3, 10)
    assert reader.drain_rate == pytest.approx(10, rel=0.1)


def test_an_old_reading_says_nothing_any_more(reader: LagReader) -> None:
    reader._note(reading(lag._FRESH_S + 2, waiting=5, indexed=100))
    reader._note(reading(lag._FRESH_S + 1, waiting=0, indexed=140))
    assert (reader.waiting, reader.unread, reader.drain_rate) == (None, None, None)
