"""Reading Kafka without a consumer group, with a new consumer whenever the last one was lost."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from mode import Service

from deeplens_streams.broker.security import client_options
from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError

#: Seconds before a new consumer is tried.
RETRY_S = 1.0


async def keep_reading(
    service: Service,
    settings: Settings,
    read: Callable[[AIOKafkaConsumer], Awaitable[None]],
    on_lost: Callable[[Exception], None],
    *,
    faults: tuple[type[Exception], ...] = (KafkaError, OSError),
    retry_s: float = RETRY_S,
) -> None:
    """Have `read` go on with a consumer of no group until `service` stops.

    Parameters
    ----------
    read : assigns itself what it reads, and returns when the service stops.
    on_lost : told of each fault, before another consumer is tried.
    faults : for which one is.
    """
    # Files with secrets are read each time, and may just be changing.
    faults = (ConfigurationError, *faults)
    while not service.should_stop:
        consumer: AIOKafkaConsumer | None = None
        try:
            consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
            await consumer.start()
            await read(consumer)
        except faults as error:
            on_lost(error)
            await service.sleep(retry_s)
        finally:
            if consumer is not None:
                with suppress(KafkaError, OSError):
                    await consumer.stop()
