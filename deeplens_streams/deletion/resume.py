"""Finishes deletions that were begun: their worker was killed, or Kafka was away."""

from typing import Any

import structlog
from mode import Service

from deeplens_streams.broker.topics import Publish
from deeplens_streams.deletion import image as deletion
from deeplens_streams.deletion.unremovable import Unremovable
from deeplens_streams.errors import DependencyUnavailable
from deeplens_streams.services import Services

log = structlog.get_logger()

#: Seconds between two looks. Each is one short listing where there is nothing to do.
_LOOK_S = 15.0


class PendingDeletions(Service):
    """Of one api process; that others do the same costs no more than a repetition."""

    def __init__(self, services: Services, publish: Publish, **kwargs: Any) -> None:
        self._services, self._publish = services, publish
        self._unremovable = Unremovable(services.breakers, "deletions")
        super().__init__(**kwargs)

    @Service.task
    async def _look(self) -> None:
        # Not at once: events can be sent only when the app behind this has started.
        await self.sleep(_LOOK_S)
        while not self.should_stop:
            await self._finish()
            await self.sleep(_LOOK_S)

    async def _finish(self) -> None:
        self._unremovable.begin()
        try:
            count = await deletion.finish(self._services, self._publish, self._unremovable)
        except DependencyUnavailable:
            return  # its breaker has said so
        except Exception:
            log.exception("deletions are left unfinished")
            return
        self._unremovable.end()
        if count:
            log.info("deletions finished that were left behind", images=count)
