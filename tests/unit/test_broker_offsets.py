"""What a group reads next, and what was removed before it could."""

import pytest

from deeplens_streams.broker.offsets import Removed, RemovedUnread, positions


@pytest.mark.parametrize(
    ("committed", "beginning", "end", "expected"),
    [
        (None, 0, 9, 0),
        # Nothing was committed, and the oldest records are gone.
        (None, 5, 9, 5),
        (0, 0, 0, 0),
        (7, 5, 9, 7),
        (9, 5, 9, 9),
        (5, 5, 9, 5),
        # Removed before it was read.
        (3, 5, 9, 5),
        (3, 9, 9, 9),
        # The topic was deleted and made again, so this offset is another one's.
        (70, 0, 9, 0),
        (70, 5, 9, 5),
    ],
)
def test_positions(committed: int | None, beginning: int, end: int, expected: int) -> None:
    known = {} if committed is None else {"p": committed, "a stranger's": 3}
    assert positions(known, {"p": beginning}, {"p": end}) == {"p": expected}


def test_losses_are_told_once_and_by_partition() -> None:
    removed = RemovedUnread()
    assert removed.news({"a": 5}, {"a": 5, "b": 0}) == {}
    assert removed.news({"a": 5}, {"a": 8, "b": 4}) == {
        "a": Removed(committed=5, beginning=8, count=3),
        "b": Removed(committed=None, beginning=4, count=4),
    }
    assert removed.news({"a": 5}, {"a": 8, "b": 4}) == {}
    assert removed.news({"a": 5}, {"a": 10, "b": 4}) == {"a": Removed(5, 10, 2)}
    # It went on from there, and was left behind again.
    assert removed.news({"a": 12, "b": 6}, {"a": 12, "b": 5}) == {}
    assert removed.news({"a": 12, "b": 6}, {"a": 15, "b": 7}) == {
        "a": Removed(12, 15, 3),
        "b": Removed(6, 7, 1),
    }
