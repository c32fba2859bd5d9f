"""What is stored and belongs to no image: vectors, files, claims, and letters that wait in vain."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Protocol

from deeplens_streams.ledger import GRACE_S, PAGE, Fault, Found, Ledger, Repair
from deeplens_streams.services import Services
from deeplens_streams.storage.objects import DamagedMetadata
from models.events import utc_now
from models.letters import DeadLetter, LetterState
from models.status import ImageRow


class Rows(Protocol):
    """What is used of the status table, as seen from any worker."""

    async def rows(self, image_ids: list[str]) -> dict[str, ImageRow]: ...


class Orphans:
    """Finds them, tenant by tenant."""

    def __init__(self, services: Services, rows: Rows) -> None:
        self._services, self._rows = services, rows

    async def walk(self, tenant: str, _ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        """Yield each with the image that it was of."""
        for walk in (self._vectors, self._letters, self._files, self._claims):
            async with aclosing(walk(tenant)) as findings:
                async for found in findings:
                    yield found

    async def _vectors(self, tenant: str) -> AsyncGenerator[tuple[str, Found]]:
        vectors, model = self._services.vectors, self._services.model.name
        if vectors is None:
            return
        after = None
        while True:
            page = await vectors.page(tenant=tenant, model=model, limit=PAGE, after=after)
            for image_id, uploaded_at in page.images:
                if not (
                    await self._is_stored(tenant, image_id, uploaded_at)
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

    async def _letters(self, tenant: str) -> AsyncGenerator[tuple[str, Found]]:
        async with aclosing(self._services.letters.walk(tenant=tenant)) as letters:
            async for letter in letters:
                if letter.state == LetterState.WAITING and letter.imageId is not None:
                    why = await self._why_orphaned(letter)
                    if why is not None:
                        orphaned = Fault.LETTER_ORPHANED
                        yield letter.imageId, (orphaned, why, self._supersede(letter, why))

    async def _why_orphaned(self, letter: DeadLetter) -> str | None:
        assert letter.imageId is not None, "its caller has looked"
        if not await self._is_stored(letter.tenantId, letter.imageId):
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

    async def _files(self, tenant: str) -> AsyncGenerator[tuple[str, Found]]:
        storage = self._services.storage
        async with aclosing(storage.walk_files(tenant=tenant)) as files:
            async for key, image_id in files:
                if await self._is_stored(tenant, image_id) or await self._is_at_work(image_id):
                    continue
                # An upload stores the bytes first.
                written = await storage.written_at(tenant=tenant, key=key)
                if written is not None and _age_s(written) > GRACE_S:
                    yield image_id, (Fault.FILE_ORPHANED, key, self._unlink(tenant, key))

    def _unlink(self, tenant: str, key: str) -> Repair:
        async def repair() -> None:
            await self._services.storage.delete_object(tenant=tenant, key=key)

        return repair

    async def _claims(self, tenant: str) -> AsyncGenerator[tuple[str, Found]]:
        async with aclosing(self._services.claims.walk(tenant=tenant)) as claims:
            async for checksum, claim in claims:
                if await self._is_stored(
                    tenant, claim.image_id, claim.uploaded_at
                ) or await self._is_at_work(claim.image_id):
                    continue
                if _age_s(datetime.fromisoformat(claim.at)) > GRACE_S:
                    repair = self._release(tenant, checksum, claim.image_id)
                    yield claim.image_id, (Fault.CLAIM_ORPHANED, f"of {checksum}", repair)

    def _release(self, tenant: str, checksum: str, image_id: str) -> Repair:
        async def repair() -> None:
            await self._services.claims.release(tenant=tenant, checksum=checksum, image_id=image_id)

        return repair

    async def _is_stored(self, tenant: str, image_id: str, uploaded_at: str | None = None) -> bool:
        """Tell whether there is such an image; one that cannot be read is one, too."""
        try:
            found = await self._services.storage.get_metadata(
                tenant=tenant, image_id=image_id, uploaded_at=uploaded_at
            )
        except DamagedMetadata:
            return True
        return found is not None

    async def _is_at_work(self, image_id: str) -> bool:
        """Tell whether a purge will come to it."""
        tombstone = await self._services.tombstones.find(image_id)
        return tombstone is not None and tombstone.completedAt is None


def _age_s(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
