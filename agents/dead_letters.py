"""DeadLetterKeeper: reads what failed and says so where an operator looks."""

from typing import TYPE_CHECKING

import structlog

from deeplens_streams.metrics import DEAD_LETTERS_READ
from deeplens_streams.services import Services
from deeplens_streams.stage import Stage
from deeplens_streams.topics import FAILED, Message, Publisher
from models.events import ProcessingFailed

if TYPE_CHECKING:
    import faust

log = structlog.get_logger()


async def process(event: ProcessingFailed) -> list[Message]:
    """Count the dead letter by step and code, and write one line for it."""
    data = event.data
    DEAD_LETTERS_READ.labels(data.failedStep[:60], data.errorCode[:60]).inc()
    log.warning(
        "picture failed",
        step=data.failedStep[:60],
        code=data.errorCode[:60],
        reason=data.errorMessage[:500],
        can_retry=data.canRetry,
    )
    return []


def register(app: "faust.App", services: Services, publisher: Publisher) -> None:
    del services
    stage = Stage("dead_letters", ProcessingFailed, process, publisher)

    @app.agent(publisher.channel(FAILED), name="DeadLetterKeeper", concurrency=2)
    async def dead_letters(stream: "faust.StreamT[bytes]") -> None:
        await stage.run(stream)
