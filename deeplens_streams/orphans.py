"""What belongs to no image: rows, vectors, files, claims, pointers, letters that wait in vain."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import compress
from typing import Protocol

from deeplens_streams.ledger import GRACE_S, PAGE, Fault, Found, Ledger, Repair
from deeplens_streams.reports import ending
from deeplens_streams.services import Services
from deeplens_streams.storage.objects import DamagedMetadata
from deeplens_streams.topics import Message
from models.deletion import ImageDeleted, ImageDeletedData
from models.events import derived_id, utc_now
from models.letters import DeadLetter, LetterState
from models.status import Ending, ImageRow, ImageState

#: Rows whose images are looked for together.
_AT_ONCE = 16

#: Yields every row of the status table, in pages.
AllRows = Callable[[], AsyncGenerator[list[ImageRow]]]


class Rows(Protocol):
    """What is used of the status table, as seen from any worker."""

    async def rows(self, image_ids: list[str]) -> dict[str, ImageRow]: ...


class Backlog(Protocol):
    """What is used of what stages have still to read."""

    @property
    def read_up_to(self) -> datetime | None:
        """What moved last before it and is not at its end is not on its way any more.

        None while that is not known.
        """


async def is_stored(
    services: Services, tenant: str, image_id: str, uploaded_at: str | None = None
) -> bool:
    """Tell whether there is such an image; one that cannot be read is one, too."""
    try:
        found = await services.storage.get_metadata(
            tenant=tenant, image_id=image_id, uploaded_at=uploaded_at
        )
    except DamagedMetadata:
        return True
    return found is not None


class RowOrphans:
    """Rows of which storage knows nothing: neither an image nor that one was deleted.

    The row of a refused upload is none of them: it has ended, as these do when they are repaired.
    """

    def __init__(self, services: Services, rows: Rows, all_rows: AllRows, backlog: Backlog) -> None:
        self._services, self._rows, self._all_rows = services, rows, all_rows
        self._backlog = backlog

    async def walk(
        self, tenants: Collection[str] | None, ledger: Ledger
    ) -> AsyncGenerator[ImageRow]:
        """Yield each of these tenants', or of all."""
        async with aclosing(self._all_rows()) as pages:
            async for page in pages:
                ledger.checked += len(page)
                asked = [row for row in page if tenants is None or row.tenantId in tenants]
                for start in range(0, len(asked), _AT_ONCE):
                    some = asked[start : start + _AT_ONCE]
                    found = await asyncio.gather(*map(self._is_one, some))
                    for row in compress(some, found):
                        yield row

    async def _is_one(self, row: ImageRow) -> bool:
        moved, read_up_to = datetime.fromisoformat(row.lastUpdated), self._backlog.read_up_to
        may_move = read_up_to is None or moved >= read_up_to - timedelta(seconds=GRACE_S)
        if may_move or row.status == ImageState.DELETED:
            return False
        if await is_stored(self._services, row.tenantId, row.imageId, row.uploadedAt):
            return False
        try:
            # The row may name another time than the image, or a stranger may have made it.
            for find in (self._services.storage.find, self._services.tombstones.find):
                if await find(row.imageId) is not None:
                    return False
        except DamagedMetadata:
            return False
        now = (await self._rows.rows([row.imageId])).get(row.imageId)
        return now is not None and now.lastUpdated == row.lastUpdated


def dropped(row: ImageRow) -> Message:
    """Return what ends a row of no image."""
    event = ImageDeleted(
        eventType=ImageDeleted.EVENT_TYPE,
        eventId=derived_id("dropped", row.imageId),
        timestamp=utc_now(),
        tenantId=row.tenantId,
        correlationId=row.correlationId,
        data=ImageDeletedData(imageId=row.imageId),
    )
    return ending(event, Ending.DROPPED)


class Orphans:
    """Finds all others, tenant by tenant, but for pointers, which are kept by image alone."""

    def __init__(self, services: Services, rows: Rows) -> None:
        self._services, self._rows = services, rows

    async def walk(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        """Yield each with the image that it was of."""
        for walk in (self._vectors, self._letters, self._files, self._claims):
            async with aclosing(walk(tenant, ledger)) as findings:
                async for found in findings:
                    yield found

    async def _vectors(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        vectors, model = self._services.vectors, self._services.model.name
        if vectors is None:
            return
        after = None
        while True:
            page = await vectors.page(tenant=tenant, model=model, limit=PAGE, after=after)
            ledger.checked += len(page.images)
            for image_id, uploaded_at in page.images:
                if not (
                    await is_stored(self._services, tenant, image_id, uploaded_at)
                    or await self._is_at_work(image_id)
                ):
                    repair = self._remove(tenant, image_id)
                    yield image_id, (Fault.VECTOR_ORPHANED, f"a vector of {model}", repair)
            after = page.after
            if after is None:
                return

    def _remove(self, tenant: str, image_id: str) -> Repair:
        async def repair() -> None:
            assert self._services.vectors is not None, "it was found there"
            await self._services.vectors.delete(
                [image_id], tenant=tenant, model=self._services.model.name
            )

        return repair

    async def _letters(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        async with aclosing(self._services.letters.walk(tenant=tenant)) as letters:
            async for letter in letters:
                ledger.checked += 1
                if letter.state == LetterState.WAITING and letter.imageId is not None:
                    why = await self._why_orphaned(letter)
                    if why is not None:
                        orphaned = Fault.LETTER_ORPHANED
                        yield letter.imageId, (orphaned, why, self._supersede(letter, why))

    async def _why_orphaned(self, letter: DeadLetter) -> str | None:
        assert letter.imageId is not None, "its caller has looked"
        if not await is_stored(self._services, letter.tenantId, letter.imageId):
            return "the image is gone"
        row = (await self._rows.rows([letter.imageId])).get(letter.imageId)
        if row is not None and row.generation > letter.generation:
            return "the image has moved on"
        return None

    def _supersede(self, letter: DeadLetter, why: str) -> Repair:
        async def repair() -> None:
            letter.state, letter.reason = LetterState.SUPERSEDED.value, why
            letter.resolvedAt = utc_now()
            await self._services.letters.resolve(letter)

        return repair

    async def _files(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        storage = self._services.storage
        async with aclosing(storage.walk_files(tenant=tenant)) as files:
            async for key, image_id in files:
                ledger.checked += 1
                if await is_stored(self._services, tenant, image_id) or await self._is_at_work(
                    image_id
                ):
                    continue
                # An upload stores the bytes first.
                written = await storage.written_at(tenant=tenant, key=key)
                if written is not None and _age_s(written) > GRACE_S:
                    yield image_id, (Fault.FILE_ORPHANED, key, self._unlink(tenant, key))

    def _unlink(self, tenant: str, key: str) -> Repair:
        async def repair() -> None:
            await self._services.storage.delete_object(tenant=tenant, key=key)

        return repair

    async def _claims(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        async with aclosing(self._services.claims.walk(tenant=tenant)) as claims:
            async for checksum, claim in claims:
                ledger.checked += 1
                if await is_stored(
                    self._services, tenant, claim.image_id, claim.uploaded_at
                ) or await self._is_at_work(claim.image_id):
                    continue
                if _age_s(datetime.fromisoformat(claim.at)) > GRACE_S:
                    repair = self._release(tenant, checksum, claim.image_id)
                    yield claim.image_id, (Fault.CLAIM_ORPHANED, f"of {checksum}", repair)

    def _release(self, tenant: str, checksum: str, image_id: str) -> Repair:
        async def repair() -> None:
            await self._services.claims.release(tenant=tenant, checksum=checksum, image_id=image_id)

        return repair

    async def pointers(self, ledger: Ledger) -> AsyncGenerator[tuple[str, str, Found]]:
        """Yield each pointer of no image, with tenant and image that it names."""
        storage = self._services.storage
        async with aclosing(storage.walk_pointers()) as pointers:
            async for image_id, tenant, has_image in pointers:
                ledger.checked += 1
                if has_image:
                    continue
                # An upload stores the pointer before the metadata object.
                written = await storage.pointer_written_at(image_id)
                if written is not None and _age_s(written) > GRACE_S:
                    detail = "neither an image nor that it was deleted is stored"
                    repair = self._unpoint(image_id)
                    yield tenant, image_id, (Fault.POINTER_ORPHANED, detail, repair)

    def _unpoint(self, image_id: str) -> Repair:
        async def repair() -> None:
            await self._services.storage.remove_pointer(image_id)

        return repair

    async def _is_at_work(self, image_id: str) -> bool:
        """Tell whether a purge will come to it."""
        tombstone = await self._services.tombstones.find(image_id)
        return tombstone is not None and tombstone.completedAt is None


def _age_s(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
