"""Topics are made by the first worker that starts, and looked at by each."""

import asyncio

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from deeplens_streams.broker_admin import admin_client
from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.topics import CHANGELOGS, TOPICS, Topic

log = structlog.get_logger()

_CREATED = (*TOPICS, *CHANGELOGS)
#: Seconds that Kafka has to elect leaders for new topics.
_ELECTION_S = 20.0


async def ensure_topics(settings: Settings) -> None:
    """Create the topics that are missing; those that exist must have the right count.

    Raises
    ------
    BrokerUnavailable
        No broker answers.
    ConfigurationError
        A topic exists with another number of partitions, or Kafka does not let us in.
    """
    async with admin_client(settings) as admin:
        existing = await _partitions(admin, settings)
        for topic in _CREATED:
            name = topic.name(settings.namespace)
            count = existing.get(name, topic.partitions)
            if count != topic.partitions:
                raise ConfigurationError(
                    f"The topic {name} has {count} partitions and must have {topic.partitions}; "
                    "delete it, or choose another DEEPLENS_NAMESPACE."
                )
        missing = [t for t in _CREATED if t.name(settings.namespace) not in existing]
        if missing:
            await _create(admin, missing, settings)


async def _partitions(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, int]:
    """Return the partition count of each of our topics that exists."""
    names = [topic.name(settings.namespace) for topic in _CREATED]
    known = set(await admin.list_topics())
    described = await admin.describe_topics([name for name in names if name in known] or None)
    return {
        each["topic"]: len(each["partitions"])
        for each in described
        if each["topic"] in names and not each["error_code"]
    }


async def _create(admin: AIOKafkaAdminClient, topics: list[Topic], settings: Settings) -> None:
    response = await admin.create_topics(
        [
            NewTopic(
                topic.name(settings.namespace),
                topic.partitions,
                settings.replication,
                topic_configs=topic.config(settings),
            )
            for topic in topics
        ]
    )
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        # Another worker that starts at this moment may have been faster.
        if code and error is not TopicAlreadyExistsError:
            reason = rest[0] if rest and rest[0] else error.__name__
            raise ConfigurationError(f"Kafka did not create the topic {name}: {reason}")
    await _wait_for_leaders(admin, settings)
    log.info("topics created", topics=[topic.name(settings.namespace) for topic in topics])


async def _wait_for_leaders(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    """Return when every partition can be read: Kafka answers before it has elected leaders."""
    names = [topic.name(settings.namespace) for topic in _CREATED]
    async with asyncio.timeout(_ELECTION_S):
        while True:
            described = await admin.describe_topics(names)
            if all(
                partition["leader"] >= 0 and not partition["error_code"]
                for topic in described
                for partition in topic["partitions"]
            ):
                return
            await asyncio.sleep(0.05)
