"""Notifier: a metric and a log line for each picture that reached its end."""

from typing import TYPE_CHECKING

import structlog

from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import NOTIFICATIONS
from deeplens_streams.metrics import PROCESSING_SECONDS, known_or_other
from deeplens_streams.pipeline.registration import register_stage
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
    register_stage(app, NOTIFICATIONS, process, services=services, publisher=publisher)
