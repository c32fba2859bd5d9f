"""Whether the stream side of a process can work: Kafka answers, tables are recovered."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from deeplens_streams.errors import DeepLensError
from deeplens_streams.web.context import Check

if TYPE_CHECKING:
    from deeplens_streams.application import RoleApp
    from deeplens_streams.web.feed import KafkaStatusFeed


async def stream_checks(apps: "Sequence[RoleApp]", feed: "KafkaStatusFeed") -> Mapping[str, Check]:
    """Return the checks ``broker`` and ``tables``."""
    try:
        await feed.ping()
        broker = Check(ok=True)
    except DeepLensError as error:
        broker = Check(ok=False, detail=error.message)
    waiting = [app.role.value for app in apps if not app.settled]
    tables = Check(
        ok=not waiting,
        detail=f"waiting for partitions or recovery: {', '.join(waiting)}" if waiting else "",
    )
    return {"broker": broker, "tables": tables}
