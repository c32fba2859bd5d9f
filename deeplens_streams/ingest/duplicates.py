"""Whether a tenant has an image's bytes already, and who is to be referred to."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from deeplens_streams.errors import RowMoving
from deeplens_streams.ingest.timings import Timings
from deeplens_streams.storage.base import ImageStorage
from deeplens_streams.storage.duplicate_claims import Claim, DuplicateClaims
from deeplens_streams.storage.image_objects import DamagedMetadata
from deeplens_streams.storage.object_keys import epoch_ms
from models.images import StoredImage
from models.status import ImageRow, ImageState

_LOOK_S, _ROW_LOOK_S = 0.05, 0.25


class Rows(Protocol):
    """What is used of the status table, as seen from any worker."""

    async def row(self, image_id: str) -> ImageRow | None: ...


@dataclass(frozen=True, slots=True)
class New:
    """Nobody has the bytes."""


@dataclass(frozen=True, slots=True)
class DuplicateOf:
    """An image has them that is accepted and has not failed."""

    image: StoredImage


@dataclass(frozen=True, slots=True)
class TakeOver:
    """A claim on them is of an image that failed, went, or was never accepted."""

    claim: Claim


Found = New | DuplicateOf | TakeOver


class DuplicateFinder:
    """Looks for earlier images of the same bytes.

    Attributes
    ----------
    timings : how long it waits for what is not certain yet.
    """

    def __init__(
        self, storage: ImageStorage, claims: DuplicateClaims, rows: Rows, timings: Timings
    ) -> None:
        self._storage, self._claims, self._rows = storage, claims, rows
        self.timings = timings

    async def find_duplicate(self, image: StoredImage) -> Found:
        """Tell who has the image's bytes, once that is certain.

        Raises
        ------
        StorageUnavailable
        RowMoving
            Nobody can tell whether the image that has them has failed.
        """
        claim = await self._settled(image)
        if claim is None:
            return New()
        first = await self._alive(image, claim)
        return TakeOver(claim) if first is None else DuplicateOf(first)

    async def _settled(self, image: StoredImage) -> Claim | None:
        """Return the claim on the bytes, once it is confirmed or its upload is dead."""
        timings, seen, since = self.timings, None, 0.0
        while True:
            held = await self._claims.find(tenant=image.tenantId, checksum=image.checksumSha256)
            if held is None or held.confirmed or _is_older(held.at, timings.long_ago_s):
                return held
            if held.image_id == image.imageId:
                return held  # made by a write whose answer was lost
            if seen != held.raw:
                seen, since = held.raw, time.monotonic()
            elif time.monotonic() - since > timings.pending_s:
                return held
            await asyncio.sleep(_LOOK_S)

    async def _alive(self, image: StoredImage, held: Claim) -> StoredImage | None:
        """Return the image that has the bytes, or None if they are to be processed again."""
        if not held.image_id:
            return None
        try:
            first = await self._storage.get_metadata(
                tenant=image.tenantId, image_id=held.image_id, uploaded_at=held.uploaded_at
            )
        except DamagedMetadata:
            return None  # nobody is referred to what cannot be shown
        if first is None:
            return None  # refused or deleted
        row = await self._row(first.imageId)
        if row is None:  # without one, an upload died that has not confirmed its claim
            return first if held.confirmed else None
        return None if row.status in {ImageState.FAILED, ImageState.DELETED} else first

    async def _row(self, image_id: str) -> ImageRow | None:
        """Return the image's row; one that moves is waited for: only it tells of a failure."""
        deadline = time.monotonic() + self.timings.row_s
        while True:
            try:
                return await self._rows.row(image_id)
            except RowMoving:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_ROW_LOOK_S)


def _is_older(at: str, seconds: float) -> bool:
    return datetime.now(UTC).timestamp() - epoch_ms(at) / 1000 > seconds
