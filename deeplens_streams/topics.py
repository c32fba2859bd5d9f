"""Every topic, declared once, in pipeline order, and the door through which events go out."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from deeplens_streams import codec
from deeplens_streams.breakers import Breakers
from deeplens_streams.broker_admin import admin_client
from deeplens_streams.config import Settings
from deeplens_streams.errors import BrokerUnavailable, ConfigurationError

if TYPE_CHECKING:
    import faust

    from models.events import Event

log = structlog.get_logger()

_DAY_MS = 86_400_000
#: Of compacted topics.
_SEGMENT_MS, _SEGMENT_BYTES = 3_600_000, 64 * 1024 * 1024
#: Seconds that Kafka has to elect leaders for new topics.
_ELECTION_S = 20.0


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
    """

    base: str
    partitions: int
    purpose: str
    retention: str | None = "retention_days"
    max_bytes: int = 1_048_588
    dirty_ratio: float = 0.5
    separator: str = "."

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
            }
        days: int = getattr(settings, self.retention)
        return config | {"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS)}


#: Partitions of the status table, and so of the topic that feeds it.
TABLE_PARTITIONS = 6
#: The same, of the table of tenants.
TENANT_PARTITIONS = 2

UPLOADED = Topic("deeplens.images.uploaded", 6, "uploads that were answered")
EXTRACTION = Topic("deeplens.features.extraction", 4, "one request for each picture and model")
INDEXING = Topic(
    "deeplens.vectors.indexing", 4, "vectors to be stored", retention="vector_retention_days"
)
DELETED = Topic("deeplens.images.deleted", 4, "deleted pictures that are to be purged")
PROGRESS = Topic("deeplens.images.progress", TABLE_PARTITIONS, "what each stage reports")
STATUS = Topic(
    "deeplens.images.status", TABLE_PARTITIONS, "each picture's present row", retention=None
)
COMPLETED = Topic("deeplens.processing.completed", 2, "pictures that reached their end")
FAILED = Topic(
    "deeplens.processing.failed",
    2,
    "dead letters",
    retention="failed_retention_days",
    # A dead letter carries the whole message that failed, base64 in the worst case.
    max_bytes=8_388_608,
)

TENANT_CHANGES = Topic(
    "deeplens.tenants.changes", TENANT_PARTITIONS, "what is to change of tenants"
)
TENANTS = Topic(
    "deeplens.tenants",
    1,
    "each tenant as it is now",
    retention=None,
    # It is small, rewritten all the time, and every api process reads it whole before it answers.
    dirty_ratio=0.1,
)

TOPICS = (
    *(UPLOADED, EXTRACTION, INDEXING, DELETED, PROGRESS, STATUS, COMPLETED, FAILED),
    *(TENANT_CHANGES, TENANTS),
)

#: Faust would create it, too, but after its producer has read which topics there are: until the
#: next look, minutes later, rows could not be written.
CHANGELOGS = tuple(
    Topic(f"deeplens-api-{table}-changelog", partitions, purpose, retention=None, separator="-")
    for table, partitions, purpose in (
        ("image_status", TABLE_PARTITIONS, "the status table, to recover it from"),
        ("tenants", TENANT_PARTITIONS, "the registry of tenants, to recover it from"),
    )
)
_CREATED = (*TOPICS, *CHANGELOGS)


@dataclass(frozen=True, slots=True)
class Message:
    """An event and where it is to go."""

    topic: Topic
    event: "Event"
    #: Whether the key's record goes from a compacted topic; then the event only names the key.
    is_tombstone: bool = False


class Publisher:
    """Sends events of one app; a sent event is durable when the awaited call returns."""

    def __init__(self, app: "faust.App", settings: Settings, breakers: Breakers) -> None:
        self._app = app
        self._breaker = breakers[BrokerUnavailable.dependency]
        self._timeout = settings.produce_timeout_s
        self._topics = {
            topic: app.topic(
                topic.name(settings.namespace),
                key_type=bytes,
                value_type=bytes,
                key_serializer="raw",
                value_serializer="raw",
                allow_empty=True,
                partitions=topic.partitions,
            )
            for topic in TOPICS
        }
        self._names = {topic: topic.name(settings.namespace) for topic in TOPICS}

    def channel(self, topic: Topic) -> "faust.TopicT":
        """Return Faust's own topic, to read from; keys and values are raw bytes."""
        return self._topics[topic]

    async def _begin(self, message: Message) -> Awaitable[Any]:
        """Hand the event to the producer; what is returned is done when Kafka has it.

        Straight to the producer: Faust's topics would only wrap what is bytes already.
        """
        event = message.event
        producer = await self._app.maybe_start_producer()
        sent: Awaitable[Any] = await producer.send(
            self._names[message.topic],
            event.key.encode(),
            None if message.is_tombstone else codec.encode(event),
            partition=None,
            timestamp=None,
            headers=cast(Any, codec.headers(event)),
        )
        return sent

    async def send(self, *messages: Message) -> None:
        """Send events together and return when every in-sync replica has them (acks=all).

        Raises
        ------
        BrokerUnavailable
            Kafka refused it, or did not answer in ``produce_timeout_s``. In the second case
            it may still be delivered later.
        """
        with self._breaker.call():
            await self._send(messages)

    async def _send(self, messages: Sequence[Message]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                for waiting in [await self._begin(message) for message in messages]:
                    await waiting
        except TimeoutError:
            raise BrokerUnavailable(
                f"Kafka did not take the event within {self._timeout:g} s; try again later."
            ) from None
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka refused the event ({type(error).__name__}).") from error


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
