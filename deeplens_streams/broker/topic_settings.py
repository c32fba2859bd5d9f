"""What a topic's settings must be, and where the broker's deviate.

What keeps more than we need is no deviation: an operator may have meant it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deeplens_streams.broker.described import Described
from deeplens_streams.broker.topics import Topic
from deeplens_streams.config import Settings


@dataclass(frozen=True, slots=True)
class Deviation:
    """A setting of a topic that is not as it must be.

    Attributes
    ----------
    topic : the whole name.
    must_be : the value that `apply` gives it; what is better may stay.
    why : what comes of it.
    loses : whether what must be kept is removed for it, so that no worker starts.
    cure : what to do where Kafka cannot change it; None where it can.
    """

    topic: str
    setting: str
    found: str
    must_be: str
    why: str
    loses: bool = False
    cure: str | None = None

    def __str__(self) -> str:
        """Return it as half a sentence."""
        return f"{self.topic} has {self.setting}={self.found} and must have {self.must_be}"


def _as_set(value: str) -> frozenset[str]:
    return frozenset(part.strip() for part in value.split(",") if part.strip())


def _at_least(found: str, wanted: str) -> bool:
    return float(found) == -1 or (float(wanted) != -1 and float(found) >= float(wanted))


def _at_most(found: str, wanted: str) -> bool:
    return float(found) <= float(wanted)


def _equal(found: str, wanted: str) -> bool:
    return _as_set(found) == _as_set(wanted)


#: How a setting is compared; and why it matters.
_RULES: Mapping[str, tuple[Callable[[str, str], bool], str]] = {
    "cleanup.policy": (_equal, "what must be kept is removed"),
    "retention.ms": (_at_least, "events are removed sooner than the settings promise"),
    "retention.bytes": (_at_least, "events are removed sooner than the settings promise"),
    "max.message.bytes": (_at_least, "large messages are refused"),
    "min.insync.replicas": (_at_least, "what was acknowledged may be on one broker alone"),
    "unclean.leader.election.enable": (_equal, "what was acknowledged may be gone with a broker"),
    "delete.retention.ms": (_at_least, "a worker that was off for long reads its tables anew"),
    "segment.ms": (_at_most, "old records stay longer, and whoever starts reads them"),
    "segment.bytes": (_at_most, "old records stay longer, and whoever starts reads them"),
    "min.cleanable.dirty.ratio": (_at_most, "old records stay longer, and whoever starts reads"),
}
#: Of every topic, beside its own: Kafka's defaults, which a broker may have changed.
_ALWAYS = {"unclean.leader.election.enable": "false"}


def deviations(topic: Topic, found: Described, settings: Settings) -> list[Deviation]:
    """Return what of a topic is not as it must be; nothing where we may not look."""
    name = topic.name(settings.namespace)
    faults = list(_of_replicas(name, found, settings))
    if found.settings is None:
        return faults
    for setting, must_be in _wanted(topic, found, settings).items():
        value = found.settings.get(setting)
        compare, why = _RULES.get(setting, (_equal, "it was made otherwise"))
        if value is None or compare(value, must_be):
            continue
        loses = setting == "cleanup.policy" and _loses(topic, found.settings)
        faults.append(Deviation(name, setting, value, must_be, why, loses))
    return faults


def _wanted(topic: Topic, found: Described, settings: Settings) -> dict[str, str]:
    wanted = _ALWAYS | topic.config(settings)
    if topic.retention is not None:
        wanted["retention.bytes"] = "-1"
    if "min.insync.replicas" in wanted:
        # More than there are replicas would refuse every write.
        enough = min(settings.replication, found.replicas) // 2 + 1
        wanted["min.insync.replicas"] = str(min(enough, found.replicas))
    return wanted


def _loses(topic: Topic, found: Mapping[str, str]) -> bool:
    """Tell whether a wrong cleanup policy removes what must be kept.

    Compaction keeps one event of each image, read or not; removal by age takes rows.
    """
    policy = _as_set(found["cleanup.policy"])
    if topic.retention is not None:
        return "compact" in policy
    is_endless = all(found.get(each) == "-1" for each in ("retention.ms", "retention.bytes"))
    return "delete" in policy and not is_endless


def _of_replicas(name: str, found: Described, settings: Settings) -> list[Deviation]:
    faults = []
    if found.replicas < settings.replication:
        faults.append(
            Deviation(
                name,
                "replicas",
                str(found.replicas),
                str(settings.replication),
                "it does not survive the loss of as many brokers as it should",
                cure="kafka-reassign-partitions gives it more replicas",
            )
        )
    in_sync = (found.settings or {}).get("min.insync.replicas")
    if in_sync is not None and int(in_sync) > found.replicas:
        faults.append(
            Deviation(
                name,
                "min.insync.replicas",
                in_sync,
                str(found.replicas // 2 + 1),
                "there are fewer replicas, so every write is refused",
            )
        )
    return faults


def corrected(found: Described, faults: list[Deviation]) -> dict[str, str]:
    """Return the settings that a topic is to have of its own: those that it has, put right."""
    return dict(found.overrides) | {
        each.setting: each.must_be for each in faults if each.cure is None
    }
