"""How long pictures take: measured, or not said at all."""

from datetime import UTC, datetime, timedelta
from typing import Any

from deeplens_streams.status.estimates import Estimates
from deeplens_streams.timestamps import parse_time
from models.events import wire_time
from tests.support.web_server import row_of


def done(
    number: int, took: float, *, ago: float = 0, status: str = "completed", **more: Any
) -> Any:
    end = datetime.now(UTC) - timedelta(seconds=ago)
    return row_of(
        f"img_{number}",
        status,
        [],
        uploadedAt=wire_time(end - timedelta(seconds=took)),
        searchableAfter=wire_time(end),
        **more,
    )


def test_nothing_is_said_before_it_was_measured() -> None:
    estimates = Estimates()
    for row in (
        done(1, 5, status="processing"),
        done(2, 5, status="failed"),
        done(3, 5, generation=2),
        done(4, 5, ago=3600),
        done(5, -5),
        row_of("img_6", "completed", []),
    ):
        estimates.watch(row)
    assert estimates.total() is None
    assert estimates.remaining(1) is None


def test_the_median_of_recent_pictures() -> None:
    estimates = Estimates()
    for number, took in enumerate((2, 4, 60)):
        estimates.watch(done(number, took))
        estimates.watch(done(number, 1000))  # a repeat of the same picture
    assert estimates.total() == 4
    assert estimates.remaining(3) == 29  # of those that took longer than 3: 4 and 60
    assert estimates.remaining(61) is None


def test_times() -> None:
    when = parse_time("2026-01-31T13:00:00+01:00")
    assert when is not None
    assert wire_time(when) == "2026-01-31T12:00:00.000Z"
    assert parse_time("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert parse_time("0001-01-01T00:00:00+14:00") is None
    assert parse_time("soon") is None
