"""Notifier: a metric and a log line for each picture that reached its end."""

from typing import TYPE_CHECKING

import structlog

from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import COMPLETED
from deeplens_streams.metrics import PROCESSING_SECONDS, known_or_other
from deeplens_streams.pipeline.stage import Stage
from deeplens_streams.services import Services
from models.events import ProcessingCompleted

if TYPE_CHECKING:
    import faust

log = structlog.get_logger()


async def process(event: ProcessingCompleted) -> list[Message]:
    """Count the picture and write one line for it."""
    seconds = event.data.totalProcessingTimeMs / 1000
    status = known_or_other(event.data.status, ("success", "partial"))
    PROCESSING_SECONDS.labels(status).observe(seconds)
    log.info("picture completed", status=event.data.status, seconds=round(seconds, 3))
    return []


def register(app: "faust.App", services: Services, publisher: Publisher) -> None:
    stage = Stage("notifications", ProcessingCompleted, process, publisher.send, services.breakers)

    @app.agent(publisher.channel(COMPLETED), name="Notifier", concurrency=2)
    async def notifications(stream: "faust.StreamT[bytes]") -> None:
        await stage.run(stream)
