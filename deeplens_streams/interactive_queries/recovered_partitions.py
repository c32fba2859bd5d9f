"""Which partitions of the tables this worker can answer for: its own, once they are recovered."""

from collections.abc import Mapping
from typing import Any, cast

import faust
from faust.types import TP


def recovering(app: faust.App, changelog: str) -> Mapping[int, str]:
    """Return which partitions of a table this worker reads from Kafka again, and why."""
    for table in dict(app.tables).values():
        if table.changelog_topic.get_topic_name() == changelog:
            found: Mapping[int, str] = getattr(cast(Any, table).data, "recovering", {})
            return found
    return {}


class RecoveredPartitions:
    """Kept up to date by what Faust says of rebalances.

    A partition counts from the end of the recovery with which it came until another worker has
    it: one that stays is answered for while others come. Faust itself knows only whether it
    recovers at all, and not yet in the moments between a new assignment and the recovery.
    """

    def __init__(self, app: faust.App) -> None:
        self._app = app
        self._whole: set[TP] = set()
        app.on_partitions_assigned.connect(self._assigned)
        app.on_rebalance_complete.connect(self._complete)

    def __contains__(self, tp: TP) -> bool:
        is_here = tp in self._whole and self._app.assignor.is_active(tp)
        return is_here and tp.partition not in recovering(self._app, tp.topic)

    def has_row(self, changelog: str, key: str) -> bool:
        """Tell whether a row's partition is one of these, by the table's changelog topic."""
        try:
            return self._app.producer.key_partition(changelog, key.encode()) in self
        except KeyError:  # it knows no partitions yet
            return False

    def _assigned(self, *_args: Any, **_kwargs: Any) -> None:
        self._whole = {tp for tp in self._whole if self._app.assignor.is_active(tp)}

    def _complete(self, *_args: Any, **_kwargs: Any) -> None:
        recovery = cast(Any, self._app.tables).recovery
        # Where the next rebalance came meanwhile, its partitions are not recovered.
        if not recovery.signal_recovery_start.is_set():
            self._whole = set(recovery.active_tps)
