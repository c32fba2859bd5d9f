"""Counters of the stream side, served with all others at ``/metrics``."""

from collections.abc import Collection

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("deeplens_events", "Events that a stage brought to their end", ["stage", "result"])
DEAD_LETTERS = Counter("deeplens_dead_letters", "Dead letters written", ["stage", "code"])
ATTEMPTS = Counter(
    "deeplens_attempts",
    "Attempts at an event by what came of them: done, again (after a wait) or given_up",
    ["stage", "result"],
)
UNEXPECTED = Counter(
    "deeplens_unexpected_errors",
    "Errors of a stage that nobody foresaw: faults of this program",
    ["stage"],
)
POSTPONED = Gauge("deeplens_events_postponed", "Events that wait for their next attempt", ["stage"])
BREAKER_OPEN = Gauge(
    "deeplens_breaker_open", "1 while a dependency is away and calls are refused", ["dependency"]
)
BREAKER_OPENED = Counter(
    "deeplens_breaker_opened", "How often a dependency was found to be away", ["dependency"]
)
BREAKER_FAILURES = Counter(
    "deeplens_breaker_failures", "Calls that a dependency did not answer", ["dependency"]
)
LOG_LINES_HELD_BACK = Counter(
    "deeplens_log_lines_held_back", "Lines that a library repeated and nobody needs", ["library"]
)
OFFSETS_NOT_NOTED = Counter(
    "deeplens_table_offsets_not_noted",
    "Changes of a table that are in its changelog, and of which this disk does not say so",
    ["table"],
)
PARTITIONS_REPLACED = Counter(
    "deeplens_table_partitions_replaced",
    "Copies of a partition of a table that were put aside, and read from Kafka again",
    ["table", "reason"],
)
PARTITIONS_RECOVERING = Gauge(
    "deeplens_table_partitions_recovering",
    "Partitions of a table that are read from Kafka again, and cannot be read here meanwhile",
    ["table"],
)
ROWS_UNREADABLE = Counter(
    "deeplens_table_rows_unreadable", "Looks at a row that is none, so as if it were not", ["table"]
)
PURGED = Counter("deeplens_images_purged", "Deleted pictures of which nothing is left")
AGED = Counter("deeplens_tombstones_aged", "Deleted pictures that are forgotten, tombstone and row")
UNREMOVABLE = Gauge(
    "deeplens_unremovable", "What the last look at all that is to go could not remove", ["work"]
)
DISK_USED = Gauge(
    "deeplens_disk_used_bytes",
    "What a part of the data folder takes on the disk, as it was at the last look",
    ["part"],
)
DISK_FREE = Gauge(
    "deeplens_disk_free_bytes", "What is free on the disk of a part of the data folder", ["part"]
)
CONSUMER_LAG = Gauge(
    "deeplens_consumer_lag",
    "Events that a role has still to bring to their end, as Kafka has it",
    ["role", "topic", "partition"],
)
REMOVED_UNREAD = Counter(
    "deeplens_events_removed_unread",
    "Events that retention, or somebody, removed before the role that reads them had",
    ["topic"],
)
COLLECTIONS_DAMAGED = Counter(
    "deeplens_collections_damaged",
    "Collections of the embedded vector engine whose files were damaged and put aside",
)
DROPPED = Counter(
    "deeplens_events_dropped",
    "Events of pictures that are not stored: refused, deleted or forged",
    ["stage"],
)
STAGE_SECONDS = Histogram(
    "deeplens_stage_seconds", "From taking an event to having its results in Kafka", ["stage"]
)
FINISHED = Counter("deeplens_images_finished", "Pictures that reached their end", ["status"])
DEAD_LETTERS_READ = Counter(
    "deeplens_dead_letters_read", "Dead letters read back from their topic", ["step", "code"]
)
PROCESSING_SECONDS = Histogram(
    "deeplens_processing_seconds",
    "From a picture's upload to its end",
    ["status"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)


def known_or_other(value: str, known: Collection[str]) -> str:
    """Return `value` as a label, ``other`` where it is none of ours.

    Topics take anybody's events, and each new label is a series that stays.
    """
    return value if value in known else "other"
