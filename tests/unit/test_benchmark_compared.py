"""Two versions are compared round by round, since the machine is another one in each."""

from benchmarks.compare import compared


def test_a_ratio_is_of_two_figures_of_the_same_round() -> None:
    rounds = [
        {"new": {"ms": 10.0}, "base": {"ms": 20.0}},
        {"new": {"ms": 300.0}, "base": {"ms": 400.0}},
        {"new": {"ms": 20.0}, "base": {"ms": 20.0}},
    ]
    (found,) = compared(rounds, "new", "base")
    assert (found.ratio, found.lowest, found.highest) == (0.75, 0.5, 1.0)
    assert (found.base, found.new) == (20.0, 20.0)


def test_what_one_of_the_two_does_not_have_is_left_out() -> None:
    rounds = [{"new": {"ms": 1.0, "a second": 2.0}, "base": {"a second": 4.0}}]
    assert [each.name for each in compared(rounds, "new", "base")] == ["a second"]
