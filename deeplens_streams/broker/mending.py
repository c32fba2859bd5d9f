"""Making a topic again with the number of partitions that it must have, losing nothing.

Kafka takes no partitions away, and rows belong to one each. So the topic is deleted, and made
again; what is on it goes to files before, and back by key. Its offsets go on where they ended:
usage is counted by them, and state folders remember them. Before the first record that is written
back stand as many empty ones, which are removed at once.

While this runs, a topic of its own is in Kafka, the mark, and no worker starts. Whoever is cut off
runs it again, and it begins with the files.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from pathlib import Path

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.errors import (
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.partitioner import DefaultPartitioner

from deeplens_streams.broker.aside import Aside, Manifest, Record
from deeplens_streams.broker.described import Described, describe_topics, set_overrides
from deeplens_streams.broker.offsets import positions
from deeplens_streams.broker.partitions import count_fault, mark_of
from deeplens_streams.broker.security import client_options
from deeplens_streams.broker.topic_settings import corrected, deviations
from deeplens_streams.broker.topics import Topic
from deeplens_streams.broker.topology import FAILED, READERS, group_id
from deeplens_streams.config import Role, Settings
from deeplens_streams.errors import ConfigurationError

log = structlog.get_logger()

#: Seconds that Kafka has for each step; and a killed worker, until its group knows.
PATIENCE_S = 60.0
_POLL_S = 0.1
#: Records on their way at once, and empty ones in a batch.
_AT_ONCE, _EMPTY = 1000, 50_000
_BATCH_BYTES = 1_000_000


async def mend(
    admin: AIOKafkaAdminClient, topics: Collection[Topic], settings: Settings, folder: Path
) -> AsyncGenerator[str]:
    """Give each of the topics that exist a right number of partitions; yield what was done.

    Raises
    ------
    ConfigurationError
        Workers are running, or somebody writes to the topics.
    """
    namespace = settings.namespace
    found = await describe_topics(admin, topics, namespace)
    asides = {topic: Aside(folder / topic.name(namespace)) for topic in topics}
    known = set(await admin.list_topics())
    begun = [topic for topic in topics if mark_of(topic, namespace) in known]
    for topic in begun:
        if asides[topic].manifest() is None:
            raise ConfigurationError(
                f"{topic.name(namespace)} is being mended, and its files are not in {folder}; run "
                "this where they are, or name their folder with --aside."
            )
    await _require_nobody(admin, settings)
    for topic in begun:
        yield await _make_again(admin, topic, settings, asides[topic])
    for topic, each in found.items():
        if topic in begun or not count_fault(topic, each.partitions, namespace):
            continue
        if topic.is_fixed:
            await _put_aside(admin, topic, each, settings, asides[topic])
            await _create(admin, NewTopic(mark_of(topic, namespace), 1, settings.replication))
            yield await _make_again(admin, topic, settings, asides[topic])
        else:
            new = NewPartitions(topic.partitions)
            await admin.create_partitions({topic.name(namespace): new})
            yield f"{topic.name(namespace)}: has {topic.partitions} partitions now"


async def _require_nobody(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    """Wait for members that died to be known as dead; refuse while there are others."""
    deadline = time.monotonic() + PATIENCE_S / 3
    while True:
        try:
            busy = await _busy_groups(admin, settings)
        except KafkaError as error:
            # Kafka makes the topic of groups when somebody asks for the first one.
            if not error.retriable or time.monotonic() > deadline:
                raise
        else:
            if not busy:
                return
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"Workers run (in the groups {', '.join(busy)}); stop all of them first."
                )
        await asyncio.sleep(_POLL_S)


async def _busy_groups(admin: AIOKafkaAdminClient, settings: Settings) -> list[str]:
    """Return our consumer groups that somebody is in."""
    busy = []
    for role in Role:
        # Asked for several at once, the client cannot read the answer.
        group = group_id(role, settings.namespace)
        for response in await admin.describe_consumer_groups([group]):
            busy += [str(each[1]) for each in response.groups if each[5]]
    return busy


async def _put_aside(
    admin: AIOKafkaAdminClient,
    topic: Topic,
    found: Described,
    settings: Settings,
    aside: Aside,
) -> None:
    """Write to files what of a topic is still needed: all of a compacted one, else the unread."""
    name = topic.name(settings.namespace)
    partitions = [TopicPartition(name, number) for number in range(found.partitions)]
    await asyncio.to_thread(aside.begin)
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    await consumer.start()
    try:
        beginnings = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        first = beginnings
        if topic in READERS:
            group = group_id(READERS[topic].role, settings.namespace)
            committed = await admin.list_consumer_group_offsets(group)
            known = {tp: each.offset for tp, each in committed.items() if each.offset >= 0}
            first = positions(known, beginnings, ends)
        count = 0
        for tp in partitions:
            count += await _read(consumer, tp, first[tp], ends[tp], aside)
        if await consumer.end_offsets(partitions) != ends:
            raise ConfigurationError(f"Somebody writes to {name}; stop them and run this again.")
    finally:
        await consumer.stop()
    wanted = corrected(found, deviations(topic, found, settings))
    manifest = Manifest(
        topic=name,
        ends={tp.partition: end for tp, end in ends.items()},
        count=count,
        replicas=max(found.replicas, settings.replication),
        overrides=topic.config(settings) | wanted,
    )
    await asyncio.to_thread(aside.finish, manifest)


async def _read(
    consumer: AIOKafkaConsumer, tp: TopicPartition, first: int, end: int, aside: Aside
) -> int:
    consumer.assign([tp])
    consumer.seek(tp, first)
    count = 0
    while await consumer.position(tp) < end:
        found = (await consumer.getmany(tp, timeout_ms=1000)).get(tp, [])
        records = [
            Record(tp.partition, each.timestamp, each.key, each.value, tuple(each.headers))
            for each in found
            if each.offset < end
        ]
        await asyncio.to_thread(aside.append, tp.partition, records)
        count += len(records)
    return count


async def _make_again(
    admin: AIOKafkaAdminClient, topic: Topic, settings: Settings, aside: Aside
) -> str:
    """Delete a topic, make it again, and write back what was put aside.

    The same each time that it is done: nothing that was written back before counts.
    """
    name = topic.name(settings.namespace)
    manifest = aside.manifest()
    assert manifest is not None, "it was put aside"
    # 1. The old topic goes.
    await _delete(admin, name)
    # 2. Without compaction or age, so that nothing goes before all is back.
    keep = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
    configs = dict(manifest.overrides) | keep
    await _create(admin, NewTopic(name, topic.partitions, manifest.replicas, topic_configs=configs))
    first = {
        TopicPartition(name, number): manifest.ends.get(number, 0)
        for number in range(topic.partitions)
    }
    producer = AIOKafkaProducer(
        **client_options(settings),
        enable_idempotence=True,
        max_batch_size=_BATCH_BYTES,
        max_request_size=FAILED.max_bytes,
    )
    await producer.start()
    try:
        # 3. Offsets go on where they ended.
        await _fill(producer, first)
        filled = {tp: RecordsToDelete(offset) for tp, offset in first.items() if offset}
        if filled:
            await admin.delete_records(filled)
        if topic in READERS:
            await _commit(settings, group_id(READERS[topic].role, settings.namespace), first)
        # 4. What was aside comes back.
        written = await _write_back(producer, topic, name, aside.records())
    finally:
        await producer.stop()
    if written != manifest.count:
        raise ConfigurationError(
            f"{aside.folder} holds {written} of {manifest.count} records of {name}; it was changed."
        )
    # 5. Its own settings, and the end of it.
    await set_overrides(admin, {name: manifest.overrides})
    await _delete(admin, mark_of(topic, settings.namespace))
    done = await asyncio.to_thread(aside.close)
    return f"{name}: has {topic.partitions} partitions now, {written} records kept (also in {done})"


async def _fill(producer: AIOKafkaProducer, first: Mapping[TopicPartition, int]) -> None:
    """Write so many empty records to each partition."""
    for tp, wanted in first.items():
        left = wanted
        while left:
            batch = producer.create_batch()
            for _ in range(min(left, _EMPTY)):
                if batch.append(key=None, value=None, timestamp=None) is None:
                    break
            batch.close()
            left -= batch.record_count()
            await (await producer.send_batch(batch, tp.topic, partition=tp.partition))


async def _write_back(
    producer: AIOKafkaProducer, topic: Topic, name: str, records: Iterable[Record]
) -> int:
    by_key, every = DefaultPartitioner(), list(range(topic.partitions))
    count, waiting = 0, []
    for record in records:
        number = record.partition % topic.partitions
        if record.key is not None:
            number = by_key(record.key, every, every)
        waiting.append(
            await producer.send(
                name,
                record.value,
                key=record.key,
                partition=number,
                timestamp_ms=record.timestamp,
                headers=list(record.headers),
            )
        )
        count += 1
        if len(waiting) == _AT_ONCE:
            await asyncio.gather(*waiting)
            waiting = []
    await asyncio.gather(*waiting)
    return count


async def _commit(settings: Settings, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Have a group that nobody is in begin there."""
    consumer = AIOKafkaConsumer(
        **client_options(settings), group_id=group, enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign(list(offsets))
        await consumer.commit(dict(offsets))
    finally:
        await consumer.stop()


async def _delete(admin: AIOKafkaAdminClient, name: str) -> None:
    for each, code, *_ in (await admin.delete_topics([name])).topic_error_codes:
        error = for_code(code)
        if code and error is not UnknownTopicOrPartitionError:
            raise ConfigurationError(f"Kafka did not delete the topic {each}: {error.__name__}")
    async with asyncio.timeout(PATIENCE_S):
        while name in await admin.list_topics():  # noqa: ASYNC110 - Kafka tells nobody
            await asyncio.sleep(_POLL_S)


async def _create(admin: AIOKafkaAdminClient, new: NewTopic) -> None:
    """Create a topic, and return when all of it can be written to; also where it is there."""
    for _, code, *rest in (await admin.create_topics([new])).topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            reason = rest[0] if rest and rest[0] else error.__name__
            raise ConfigurationError(f"Kafka did not create the topic {new.name}: {reason}")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            (found,) = await admin.describe_topics([new.name])
            leaders = [each["leader"] for each in found["partitions"] if not each["error_code"]]
            if len(leaders) == new.num_partitions and min(leaders) >= 0:
                return
            await asyncio.sleep(_POLL_S)
