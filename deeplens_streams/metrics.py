"""Counters of the stream side, served with all others at ``/metrics``."""

from prometheus_client import Counter, Histogram

EVENTS = Counter("deeplens_events", "Events that a stage brought to their end", ["stage", "result"])
DEAD_LETTERS = Counter("deeplens_dead_letters", "Dead letters written", ["stage", "code"])
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
