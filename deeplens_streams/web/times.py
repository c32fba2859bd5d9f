"""Times as the contract writes them: ISO-8601 UTC with milliseconds, ending in ``Z``."""

from datetime import UTC, datetime


def parse_time(text: str) -> datetime | None:
    """Read an ISO-8601 time; one without an offset is UTC, an unreadable one None."""
    try:
        when = datetime.fromisoformat(text)
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def wire_time(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
