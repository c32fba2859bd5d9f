"""What the commands ask a broker directly."""

from aiokafka.errors import KafkaError

from deeplens_streams.broker.admin import admin_client
from deeplens_streams.config import Settings
from deeplens_streams.errors import BrokerUnavailable
from deeplens_streams.host.ports import PORTS, remembered_broker

_TIMEOUT_MS = 5000


def beside_up(settings: Settings) -> Settings:
    """Return settings that lead to the Kafka of ``deeplens up`` on the same data folder.

    They are the same where another is named, or none runs there.
    """
    if any(name == "broker" or name.startswith("kafka_") for name in settings.model_fields_set):
        return settings
    port = remembered_broker(settings.data_dir / "kafka" / PORTS)
    if port is None:
        return settings
    return settings.model_copy(update={"broker": f"kafka://127.0.0.1:{port}"})


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
