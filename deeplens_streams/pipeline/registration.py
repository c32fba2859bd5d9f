"""How a stage becomes a Faust agent."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import StageSpec
from deeplens_streams.pipeline.progress import failure_reporter
from deeplens_streams.pipeline.stage import Stage, at_once
from deeplens_streams.services import Services

if TYPE_CHECKING:
    import faust


def register_stage(
    app: "faust.App",
    spec: StageSpec,
    process: Callable[[Any], Awaitable[list[Message]]],
    *,
    services: Services,
    publisher: Publisher,
    batch_size: int = 1,
    coalesce: Callable[[list[Message]], list[Message]] = list,
    settled: Callable[[], Awaitable[None]] = at_once,
) -> None:
    """Have `app` run a stage as its row in the topology says; see `Stage` for the rest."""
    stage = Stage(
        name=spec.name,
        record=spec.event,
        process=process,
        publish=publisher.send,
        breakers=services.breakers,
        report_failure=failure_reporter(spec),
        batch_size=batch_size,
        coalesce=coalesce,
        settled=settled,
    )

    @app.agent(
        publisher.channel(spec.topic),
        name=spec.agent,
        concurrency=spec.actors(services.settings),
    )
    async def agent(stream: "faust.StreamT[bytes]") -> None:
        await stage.run(stream)
