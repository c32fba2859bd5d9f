"""What a topic is, and what is sent to one; which there are says the topology."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from deeplens_streams.config import Settings

if TYPE_CHECKING:
    from models.events import Event

log = structlog.get_logger()

_DAY_MS = 86_400_000
#: Of compacted topics.
_SEGMENT_MS, _SEGMENT_BYTES = 3_600_000, 64 * 1024 * 1024
#: For how long they keep the record of a deletion. Whoever read the topic before it and reads on
#: after that would keep what was deleted; so a table's copy that is older is read anew.
_DELETIONS_MS = 7 * _DAY_MS


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it must be.

    Attributes
    ----------
    base : the name without the namespace.
    separator : between the namespace and the name; Faust's own topics have ``-``.
    retention : the setting that says for how many days; None for a compacted topic.
    max_bytes : of one message.
    dirty_ratio : of a compacted topic, how much of it may be old records before they are removed.
    purpose : one line for an operator.
    event : what it carries; None for Faust's own.
    written_by : in words, who writes to it beside the stages whose results go there.
    is_fixed : whether the number of partitions may not change, since a key's row, or the only
        record that may be left of it, is on one of them. Others may have more than declared.
    """

    base: str
    partitions: int
    purpose: str
    event: "type[Event] | None" = None
    written_by: str = ""
    retention: str | None = "retention_days"
    max_bytes: int = 1_048_588
    dirty_ratio: float = 0.5
    separator: str = "."
    is_fixed: bool = False

    def name(self, namespace: str = "") -> str:
        return f"{namespace}{self.separator}{self.base}" if namespace else self.base

    def config(self, settings: Settings) -> dict[str, str]:
        """Return Kafka's own settings for the topic."""
        config = {"max.message.bytes": str(self.max_bytes)}
        if settings.replication > 1:
            config["min.insync.replicas"] = str(settings.replication // 2 + 1)
        if self.retention is None:
            return config | {
                "cleanup.policy": "compact",
                # Kafka never compacts the segment that is written to, and by itself begins a new
                # one after a week or a GiB: whoever starts would read as much.
                "segment.ms": str(_SEGMENT_MS),
                "segment.bytes": str(_SEGMENT_BYTES),
                "min.cleanable.dirty.ratio": str(self.dirty_ratio),
                "delete.retention.ms": str(_DELETIONS_MS),
            }
        days: int = getattr(settings, self.retention)
        return config | {"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS)}


@dataclass(frozen=True, slots=True)
class Message:
    """An event and where it is to go."""

    topic: Topic
    event: "Event"
    #: Whether the key's record goes from a compacted topic; then the event only names the key.
    is_tombstone: bool = False


class Publish(Protocol):
    """Sends messages, and returns when Kafka has them."""

    async def __call__(self, *messages: Message) -> None: ...
