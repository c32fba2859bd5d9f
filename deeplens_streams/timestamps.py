"""Times as clients write them."""

from datetime import UTC, datetime


def parse_time(text: str) -> datetime | None:
    """Read an ISO-8601 time; one without an offset is UTC, an unreadable one None."""
    try:
        when = datetime.fromisoformat(text)
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
