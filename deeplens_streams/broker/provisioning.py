"""Topics are made by the first worker that starts, and looked at by each."""

import asyncio
from collections.abc import Collection

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from deeplens_streams.broker.admin import admin_client
from deeplens_streams.broker.described import Described, describe_topics
from deeplens_streams.broker.partitions import MEND, count_fault, mark_of
from deeplens_streams.broker.topic_settings import Deviation, deviations
from deeplens_streams.broker.topics import Topic
from deeplens_streams.broker.topology import CHANGELOGS, TOPICS
from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError

log = structlog.get_logger()

#: Every topic that a worker needs.
DECLARED = (*TOPICS, *CHANGELOGS)
#: Seconds that Kafka has to elect leaders for new topics.
_ELECTION_S = 20.0


async def ensure_topics(settings: Settings) -> None:
    """Create the topics that are missing, and look at those that exist.

    Raises
    ------
    BrokerUnavailable
        No broker answers.
    ConfigurationError
        A topic has a number of partitions that it cannot have, or a setting that removes what must
        be kept; or Kafka does not let us in. Other settings are warned of.
    """
    async with admin_client(settings) as admin:
        await _refuse_unfinished(admin, settings)
        existing = await describe_topics(admin, DECLARED, settings.namespace)
        _check(existing, settings)
        await create_missing(admin, existing, settings)


async def _refuse_unfinished(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    marks = {mark_of(topic, settings.namespace): topic for topic in DECLARED}
    for name in await admin.list_topics():
        if name in marks:
            raise ConfigurationError(
                f"The topic {marks[name].name(settings.namespace)} is being made again, and is not "
                f"whole; wait for {MEND}, or run it again if it was cut off."
            )


def _check(existing: dict[Topic, Described], settings: Settings) -> None:
    faults: list[Deviation] = []
    for topic, found in existing.items():
        fault = count_fault(topic, found.partitions, settings.namespace)
        if fault:
            raise ConfigurationError(fault)
        faults += deviations(topic, found, settings)
    fatal = [each for each in faults if each.loses]
    if fatal:
        raise ConfigurationError(
            f"The topic {'; '.join(map(str, fatal))}: {fatal[0].why}. Run deeplens topics --apply."
        )
    for each in faults:
        log.warning(
            "a topic is not as it must be; see deeplens topics",
            topic=each.topic,
            setting=each.setting,
            found=each.found,
            must_be=each.must_be,
            reason=each.why,
        )
    unseen = [topic.name(settings.namespace) for topic in existing if not existing[topic].settings]
    if unseen:
        log.warning("Kafka does not let us look at settings of topics", topics=unseen)


async def create_missing(
    admin: AIOKafkaAdminClient, existing: Collection[Topic], settings: Settings
) -> None:
    """Create the topics that are not among `existing`."""
    missing = [topic for topic in DECLARED if topic not in existing]
    if missing:
        await _create(admin, missing, settings)


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
    names = [topic.name(settings.namespace) for topic in DECLARED]
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
