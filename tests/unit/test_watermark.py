"""Up to which moment all is read, and all that came of it."""

from collections import defaultdict
from collections.abc import Hashable
from datetime import UTC, datetime, timedelta

from deeplens_streams.broker.watermark import HOPS, Watermark

BEGIN = datetime(2026, 3, 9, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def test_before_anything_is_read_nothing_is_known() -> None:
    mark = Watermark()
    assert mark.at is None
    mark.note(at(0), ends={"a": 5}, read={"a": 4})
    assert mark.at is None


def test_where_nothing_is_unread_all_before_is_done() -> None:
    mark = Watermark()
    mark.note(at(7), ends={"a": 5, "b": 0}, read={"a": 5, "b": 0, "other": 3})
    assert mark.at == at(7)


def test_it_follows_a_load_that_never_pauses() -> None:
    """Something is unread at every look, so no moment is a quiet one."""
    mark = Watermark()
    for second in range(60):
        mark.note(at(second), ends={"a": 10 * second + 9}, read={"a": 10 * second})
    # Each step takes one second until its end is passed.
    assert mark.at == at(59 - HOPS)


def test_one_partition_that_is_not_read_holds_it_back() -> None:
    mark = Watermark()
    mark.note(at(0), ends={"a": 5, "b": 5}, read={"a": 5, "b": 5})
    for second in range(1, 60):
        ends: dict[Hashable, int] = {"a": 5 + second, "b": 6}
        mark.note(at(second), ends=ends, read={"a": 5 + second, "b": 5})
    assert mark.at == at(0)
    mark.note(at(60), ends={"a": 65, "b": 6}, read={"a": 65, "b": 6})
    assert mark.at == at(60)


def test_what_is_kept_is_bounded_and_it_comes_forward_all_the_same() -> None:
    mark, down, behind = Watermark(), 20_000, 1_000
    for second in range(down):
        mark.note(at(second), ends={"a": second + 1}, read={"a": 0})
    assert len(mark._waiting) < 500
    assert mark.at is None
    end = down + 6 * behind
    for second in range(down, end):  # the one that was down has nearly caught up, and stays so
        mark.note(at(second), ends={"a": second + 1}, read={"a": second - behind})
    assert mark.at is not None
    assert at(end - 1.1 * HOPS * behind) < mark.at <= at(end - HOPS * behind)


def test_nothing_that_is_on_its_way_moved_last_before_it() -> None:
    """Pictures go through four topics, each of which is read with a delay of its own."""
    delays = (3, 11, 2, 7)
    ends: dict[int, int] = defaultdict(int)
    queues: list[list[tuple[int, int]]] = [[] for _ in delays]  # when written, and which picture
    moved: dict[int, int] = {}
    mark = Watermark()
    for second in range(200):
        for topic, delay in reversed(list(enumerate(delays))):
            while queues[topic] and queues[topic][0][0] + delay <= second:
                _, picture = queues[topic].pop(0)
                if topic + 1 < len(delays):
                    queues[topic + 1].append((second, picture))
                    ends[topic + 1] += 1
                else:
                    del moved[picture]  # at its end; nothing was said of it before
        queues[0].append((second, second))
        ends[0] += 1
        moved[second] = second
        read: dict[Hashable, int] = {
            topic: ends[topic] - len(queues[topic]) for topic in range(len(delays))
        }
        told: dict[Hashable, int] = {topic: ends[topic] for topic in range(len(delays))}
        mark.note(at(second), ends=told, read=read)
        if mark.at is not None:
            assert all(at(since) >= mark.at for since in moved.values())
    assert mark.at is not None
    assert mark.at > at(100)
