"""What the commands ask a broker directly."""

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from deeplens_streams.config import Settings
from deeplens_streams.errors import BrokerUnavailable

_TIMEOUT_MS = 5000


async def partition_counts(settings: Settings) -> dict[str, int]:
    """Return how many partitions each topic at the broker has.

    Raises
    ------
    BrokerUnavailable
        None answers.
    """
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.bootstrap_servers, request_timeout_ms=_TIMEOUT_MS
    )
    try:
        await admin.start()
        return {
            str(topic["topic"]): len(topic["partitions"])
            for topic in await admin.describe_topics()
            if not topic["error_code"]
        }
    except (KafkaError, OSError):
        raise BrokerUnavailable(
            f"No Kafka answers at {settings.broker}; start one, or set DEEPLENS_BROKER."
        ) from None
    finally:
        await admin.close()
