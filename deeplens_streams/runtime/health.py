"""Whether the stream side of a process can work: Kafka answers, tables are recovered."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError
from faust.types import TP

from deeplens_streams.broker.topology import PROGRESS
from deeplens_streams.web.context import Check

if TYPE_CHECKING:
    from deeplens_streams.runtime.apps import RoleApp


async def stream_checks(apps: "Sequence[RoleApp]") -> Mapping[str, Check]:
    """Return the checks ``broker`` and ``tables``."""
    waiting = [app.role.value for app in apps if not app.settled]
    said = [f"waiting for partitions or recovery: {', '.join(waiting)}"] if waiting else []
    said += [
        f"reading from Kafka again: {name}, partition {partition} ({reason})"
        for app in apps
        for name, table in sorted(dict(app.tables).items())
        for partition, reason in sorted(_recovering(table).items())
        # What a standby reads, its owner has.
        if app.assignor.is_active(TP(table.changelog_topic.get_topic_name(), partition))
    ]
    tables = Check(ok=not said, detail="; ".join(said))
    return {"broker": await _broker(apps[0]), "tables": tables}


def _recovering(table: Any) -> Mapping[int, str]:
    found: Mapping[int, str] = getattr(table.data, "recovering", {})
    return found


async def _broker(app: "RoleApp") -> Check:
    try:
        # Nobody keeps where a partition ends: this asks Kafka itself.
        await app.consumer.highwaters(TP(PROGRESS.name(app.settings.namespace), 0))
    except (KafkaError, OSError) as error:
        return Check(ok=False, detail=f"Kafka does not answer ({type(error).__name__}).")
    except Exception:  # Faust has no consumer yet
        return Check(ok=False, detail="Kafka has not answered yet.")
    return Check(ok=True)
