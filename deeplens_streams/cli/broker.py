"""What the commands ask a broker directly."""

from aiokafka.errors import KafkaError

from deeplens_streams.broker_admin import admin_client
from deeplens_streams.config import Settings
from deeplens_streams.errors import BrokerUnavailable

_TIMEOUT_MS = 5000


async def partition_counts(settings: Settings) -> dict[str, int]:
    """Return how many partitions each topic at the broker has.

    Raises
    ------
    BrokerUnavailable
        None answers.
    ConfigurationError
        One answers and does not let us in.
    """
    try:
        async with admin_client(settings, timeout_ms=_TIMEOUT_MS) as admin:
            return {
                str(topic["topic"]): len(topic["partitions"])
                for topic in await admin.describe_topics()
                if not topic["error_code"]
            }
    except (KafkaError, OSError):
        raise BrokerUnavailable(
            f"No Kafka answers at {settings.broker}; start one, or set DEEPLENS_BROKER."
        ) from None
