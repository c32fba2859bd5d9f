"""How many partitions there are of each topic, and how many there have to be."""

from collections.abc import Iterable

from aiokafka.admin import AIOKafkaAdminClient

from deeplens_streams.topics import Topic


async def partition_counts(
    admin: AIOKafkaAdminClient, topics: Iterable[Topic], namespace: str
) -> dict[Topic, int]:
    """Return how many partitions each of the topics has that exist."""
    names = {topic.name(namespace): topic for topic in topics}
    # Asked for one that does not exist, a broker may create it.
    known = set(await admin.list_topics())
    described = await admin.describe_topics([name for name in names if name in known] or None)
    return {
        names[each["topic"]]: len(each["partitions"])
        for each in described
        if each["topic"] in names and not each["error_code"]
    }
