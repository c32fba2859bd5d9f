"""How many partitions a topic has, and how many it may have."""

from collections.abc import Mapping

from deeplens_streams.broker.topics import Topic
from deeplens_streams.broker.topology import CHANGELOGS, TOPICS
from deeplens_streams.config import Settings

#: The command that mends a topic with another count, and loses nothing.
MEND = "deeplens topics --mend"
#: Behind the name of a topic that is being made again: the name of the mark, a topic itself.
_MARK = ".mending"


def mark_of(topic: Topic, namespace: str) -> str:
    """Return the name of the topic that is there while this one is made again."""
    return topic.name(namespace) + _MARK


def count_fault(topic: Topic, count: int, namespace: str) -> str | None:
    """Return what is wrong with a topic's number of partitions, and what to do; or None.

    More than declared are taken where no table depends on the number: keys may move to another
    partition there, since each stage takes its events in any order.
    """
    name = topic.name(namespace)
    if count == topic.partitions or (count > topic.partitions and not topic.is_fixed):
        return None
    if topic.is_fixed:
        return (
            f"The topic {name} has {count} partitions and must have {topic.partitions}, because "
            f"each row belongs to one of them; stop all workers and run {MEND}, which makes it "
            "again and keeps what is on it."
        )
    return (
        f"The topic {name} has {count} partitions and must have {topic.partitions} at least; "
        f"run {MEND}, which adds them."
    )


def fixed_counts(settings: Settings) -> Mapping[str, int]:
    """Return the number of partitions by name of the topics where it may not change."""
    return {
        topic.name(settings.namespace): topic.partitions
        for topic in (*TOPICS, *CHANGELOGS)
        if topic.is_fixed
    }
