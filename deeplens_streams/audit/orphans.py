"""What belongs to no image: rows, vectors, files, claims, pointers, letters that wait in vain."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from datetime import datetime
from itertools import compress

from deeplens_streams.audit.report import PAGE, Fault, Found, Ledger, Repair, Rows
from deeplens_streams.audit.settled import Stillness, is_old
from deeplens_streams.reports import ending
from deeplens_streams.services import Services
from deeplens_streams.storage import layout
from deeplens_streams.storage.objects import DamagedMetadata
from deeplens_streams.topics import Message
from deeplens_streams.vectors import VectorStore
from models.events import utc_now
from models.letters import DeadLetter, LetterState
from models.status import Ending, ImageRow, ImageState

#: Rows whose images are looked for together.
_AT_ONCE = 16

#: Yields every row of the status table, in pages.
AllRows = Callable[[], AsyncGenerator[list[ImageRow]]]


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

    def __init__(self, services: Services, rows: Rows, all_rows: AllRows, still: Stillness) -> None:
        self._services, self._rows, self._all_rows = services, rows, all_rows
        self._still = still

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
        self._still.note()
        if not self._still.has(row.lastUpdated) or row.status == ImageState.DELETED:
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
    return ending(row, Ending.DROPPED)


class Orphans:
    """Finds all others, tenant by tenant, but for pointers, which are kept by image alone."""

    def __init__(self, services: Services, rows: Rows) -> None:
        self._services, self._rows = services, rows

    async def walk(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        """Yield each with the image that it was of."""
        for walk in (self._vectors, self._letters, self._files, self._claims, self._unfinished):
            async with aclosing(walk(tenant, ledger)) as findings:
                async for found in findings:
                    yield found

    async def _vectors(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        """Look at those of every model: one of an older is somebody's as long as its image."""
        vectors = self._services.vectors
        if vectors is None:
            return
        for model in await vectors.models_of(tenant=tenant):
            async with aclosing(self._vectors_of(vectors, tenant, model, ledger)) as findings:
                async for found in findings:
                    yield found

    async def _vectors_of(
        self, vectors: VectorStore, tenant: str, model: str, ledger: Ledger
    ) -> AsyncGenerator[tuple[str, Found]]:
        after = None
        while True:
            page = await vectors.page(tenant=tenant, model=model, limit=PAGE, after=after)
            ledger.checked += len(page.images)
            for image_id, uploaded_at in page.images:
                if not (
                    await is_stored(self._services, tenant, image_id, uploaded_at)
                    or await self._is_at_work(image_id)
                ):
                    repair = self._remove(vectors, tenant, model, image_id)
                    yield image_id, (Fault.VECTOR_ORPHANED, f"a vector of {model}", repair)
            after = page.after
            if after is None:
                return

    def _remove(self, vectors: VectorStore, tenant: str, model: str, image_id: str) -> Repair:
        async def repair() -> None:
            # Storage that does not work is no proof: it looks as if it had nothing.
            await self._services.storage.ping()
            await vectors.delete([image_id], tenant=tenant, model=model)

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
                if written is not None and is_old(written):
                    yield image_id, (Fault.FILE_ORPHANED, key, self._unlink(tenant, key))

    def _unlink(self, tenant: str, key: str) -> Repair:
        async def repair() -> None:
            await self._services.storage.delete_object(tenant=tenant, key=key)

        return repair

    async def _unfinished(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        storage = self._services.storage
        async with aclosing(storage.walk_unfinished(tenant=tenant)) as writes:
            async for key, at in writes:
                ledger.checked += 1
                if is_old(at):
                    repair = self._cut(tenant, key)
                    yield layout.read_image_id(key), (Fault.WRITE_UNFINISHED, key, repair)

    def _cut(self, tenant: str, key: str) -> Repair:
        async def repair() -> None:
            await self._services.storage.remove_listed(tenant=tenant, key=key)

        return repair

    async def _claims(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        async with aclosing(self._services.claims.walk(tenant=tenant)) as claims:
            async for checksum, claim in claims:
                ledger.checked += 1
                is_damaged = not claim.image_id
                if not is_damaged and (
                    await is_stored(self._services, tenant, claim.image_id, claim.uploaded_at)
                    or await self._is_at_work(claim.image_id)
                ):
                    continue
                if is_damaged or is_old(datetime.fromisoformat(claim.at)):
                    repair = self._release(tenant, checksum, claim.image_id)
                    detail = f"of {checksum}" + ("; it cannot be read" if is_damaged else "")
                    yield claim.image_id, (Fault.CLAIM_ORPHANED, detail, repair)

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
                if written is not None and is_old(written):
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
