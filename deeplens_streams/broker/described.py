"""Topics as the broker has them: partitions, replicas and settings."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError, for_code

from deeplens_streams.broker.topics import Topic

#: Kafka's number for a setting that was made for this topic.
_OF_TOPIC = 1


@dataclass(frozen=True, slots=True)
class Described:
    """One topic that exists.

    Attributes
    ----------
    replicas : of the partition that has the fewest.
    settings : what holds for it, wherever it was set; None where we may not ask.
    overrides : those of them that were set for this topic.
    """

    partitions: int
    replicas: int
    settings: Mapping[str, str] | None
    overrides: Mapping[str, str]


async def describe_topics(
    admin: AIOKafkaAdminClient, topics: Collection[Topic], namespace: str
) -> dict[Topic, Described]:
    """Return what there is of each of the topics that exist."""
    there = await _metadata(admin, topics, namespace)
    settings = await _settings(admin, there, namespace)
    return {
        topic: Described(
            len(partitions),
            min((len(each["replicas"]) for each in partitions), default=0),
            *settings[topic.name(namespace)],
        )
        for topic, partitions in there.items()
    }


async def partition_counts(
    admin: AIOKafkaAdminClient, topics: Collection[Topic], namespace: str
) -> dict[Topic, int]:
    """Return how many partitions each of the topics has that exist."""
    there = await _metadata(admin, topics, namespace)
    return {topic: len(partitions) for topic, partitions in there.items()}


async def _metadata(
    admin: AIOKafkaAdminClient, topics: Collection[Topic], namespace: str
) -> dict[Topic, list[Any]]:
    names = {topic.name(namespace): topic for topic in topics}
    # Asked for one that does not exist, a broker may create it.
    known = set(await admin.list_topics())
    described = await admin.describe_topics([name for name in names if name in known] or None)
    return {
        names[each["topic"]]: each["partitions"]
        for each in described
        if each["topic"] in names and not each["error_code"]
    }


async def _settings(
    admin: AIOKafkaAdminClient, topics: Collection[Topic], namespace: str
) -> dict[str, tuple[Mapping[str, str] | None, Mapping[str, str]]]:
    """Return by name what holds, and what was set for the topic itself."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, each.name(namespace)) for each in topics]
    found: dict[str, tuple[Mapping[str, str] | None, Mapping[str, str]]] = {}
    for response in await admin.describe_configs(asked) if asked else ():
        for code, message, _kind, name, entries in response.resources:
            error = for_code(code)
            if error is TopicAuthorizationFailedError:
                found[name] = (None, {})
                continue
            if code:
                raise error(message)
            values = {each[0]: each[1] or "" for each in entries}
            overrides = {each[0]: each[1] or "" for each in entries if each[3] == _OF_TOPIC}
            found[name] = (values, overrides)
    return found


async def set_overrides(
    admin: AIOKafkaAdminClient, overrides: Mapping[str, Mapping[str, str]]
) -> None:
    """Give topics, by their names, these settings of their own and no others.

    Raises
    ------
    KafkaError
        Kafka refuses one; the message names the topic.
    """
    for name, values in overrides.items():
        resource = ConfigResource(ConfigResourceType.TOPIC, name, dict(values))
        for response in await admin.alter_configs([resource]):
            for code, message, *_ in response.resources:
                if code:
                    reason = message or for_code(code).__name__
                    raise KafkaError(f"Kafka did not change the settings of {name}: {reason}")
