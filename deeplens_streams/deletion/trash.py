"""Emptying the trash of what is old, and bringing things back from it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import structlog
from mode import Service

from deeplens_streams.deletion.unremovable import Unremovable
from deeplens_streams.errors import DependencyUnavailable, VectorsUnavailable
from deeplens_streams.services import Services
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata, reading
from deeplens_streams.storage.trash import Reason, TrashOccupied
from deeplens_streams.storage.trash_entries import TrashDamaged, TrashEntry
from deeplens_streams.vectors import VectorPoint
from models.trash import TrashKind

log = structlog.get_logger()

#: Seconds between two looks at what is old. What is kept for days need not go to the minute.
_LOOK_S = 3600.0


async def restore(entry: TrashEntry, services: Services, *, replace: bool, why: Reason) -> None:
    """Bring a thing back to where it was: an object to its key, a vector to its collection.

    Parameters
    ----------
    replace : what is there by now goes to the trash instead; a vector is written over.

    Raises
    ------
    TrashOccupied
        Something else is there.
    TrashDamaged
        What the trash has of it is not what it was.
    VectorsUnavailable
        It is a vector, and this process does not have the engine.
    """
    if entry.manifest.kind != TrashKind.VECTOR:
        _check_key(entry)
        await services.trash.restore(entry, replace=replace, why=why)
        return
    vectors, said = services.vectors, entry.manifest
    if vectors is None:
        raise VectorsUnavailable(
            "This worker has no vectors; ask the one with the index role to restore this one."
        )
    point = _point(await services.trash.content(entry))
    there = await vectors.present([point.image_id], tenant=said.tenantId, model=said.key)
    if there and not replace:
        raise TrashOccupied
    # 1. its collection, 2. the trash
    await vectors.upsert([point], tenant=said.tenantId, model=said.key)
    await services.trash.remove(entry)


def _check_key(entry: TrashEntry) -> None:
    """Raise `TrashDamaged` where nothing of the thing's tenant may lie at its key."""
    said = entry.manifest
    try:
        if said.kind == TrashKind.POINTER and object_keys.read_pointer_key(said.key) is not None:
            return
        object_keys.check_key(tenant=said.tenantId, key=said.key)
    except (object_keys.InvalidObjectKey, ValueError):
        raise TrashDamaged from None


def _point(data: bytes) -> VectorPoint:
    try:
        with reading("a vector in the trash", ""):
            said = orjson.loads(data)
            vector = np.asarray(said["vector"], dtype=np.float32)
            return VectorPoint(str(said["imageId"]), vector, dict(said["payload"]))
    except DamagedMetadata:
        raise TrashDamaged from None


def before_ms(days: float) -> int:
    """Return the moment so many days ago, in milliseconds since 1970."""
    moment = datetime.now(UTC) - timedelta(days=days)
    return int(moment.timestamp() * 1000)


class EmptyingTrash(Service):
    """Of one api process; that others do the same costs no more than a listing."""

    def __init__(self, services: Services, **kwargs: Any) -> None:
        self._services = services
        self._unremovable = Unremovable(services.breakers, "trash")
        super().__init__(**kwargs)

    @Service.task
    async def _look(self) -> None:
        while not self.should_stop:
            await self.empty()
            await self.sleep(_LOOK_S)

    async def empty(self) -> None:
        """Remove what has been in the trash for longer than the setting says."""
        days = self._services.settings.trash_days
        self._unremovable.begin()
        try:
            count = await self._services.trash.empty(
                before_ms=before_ms(days), refused=self._unremovable.refused
            )
        except DependencyUnavailable:
            return  # its breaker has said so
        except Exception:
            log.exception("the trash is not emptied")
            return
        self._unremovable.end()
        if count:
            log.info("the trash was emptied of what is old", things=count, days=days)
