"""The benchmark says of each figure whether its limit holds, and counts what it misses."""

from benchmarks.__main__ import Limits


def test_a_figure_at_its_limit_holds_and_one_beyond_it_is_counted() -> None:
    limits = Limits()
    assert limits.at_most(50, 50) == "at most 50: held"
    assert limits.at_least(0.7, 0.7) == "at least 0.7: held"
    assert limits.missed == 0
    assert limits.at_most(50.1, 50) == "at most 50: missed"
    assert limits.at_least(0.66, 0.7) == "at least 0.7: missed"
    assert limits.missed == 2
