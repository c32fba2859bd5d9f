"""The ledger: accepted = completed + partial + failed + deleted + in flight; and what is wrong.

What was accepted is told by storage, and what became of it by the status table. Everything is
walked in pages, so the memory it takes does not depend on how much there is. What it finds while
pictures are on their way is looked at twice where a moment could explain it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from deeplens_streams.audit.deleted_images import DeletedImages
from deeplens_streams.audit.orphans import AllRows, Orphans, RowOrphans, dropped, is_stored
from deeplens_streams.audit.report import (
    IN_FLIGHT,
    UNKNOWN,
    Fault,
    Found,
    Ledger,
    Repair,
    Rows,
    column,
    pages_of,
    rows_of,
)
from deeplens_streams.audit.settled import Stillness, Watermark
from deeplens_streams.letters import letter_id
from deeplens_streams.replay import event_id, uploaded_event
from deeplens_streams.reports import progress, report
from deeplens_streams.services import Services
from deeplens_streams.topics import UPLOADED, Message, Publish
from models.events import utc_now, wire_time
from models.images import StoredImage
from models.status import FINAL_STATES, ImageRow, ImageState, Step, StepStatus


class Audit:
    """Compares storage, status table, vectors and dead letters."""

    def __init__(
        self,
        services: Services,
        rows: Rows,
        all_rows: AllRows,
        publish: Publish,
        watermark: Watermark,
        *,
        repair: bool,
    ) -> None:
        self._services, self._rows, self._publish = services, rows, publish
        self._still, self._repair = Stillness(watermark), repair
        self._row_orphans = RowOrphans(services, rows, all_rows, Stillness(watermark))
        self._deleted = DeletedImages(services, rows, publish, self._still)
        self._orphans = Orphans(services, rows)
        self._at: tuple[str | None, Ledger] = (None, Ledger())

    @property
    def progress(self) -> dict[str, Any]:
        """How many objects and rows of the tenant were looked at; of all while there is none."""
        tenant, ledger = self._at
        return {"type": "progress", "tenantId": tenant, "checked": ledger.checked}

    async def run(self, tenants: list[str], *, is_all: bool) -> AsyncGenerator[dict[str, Any]]:
        """Yield what is found, the ledger of each tenant, and the ledger of all.

        Parameters
        ----------
        is_all : these are all that there are, so rows of any other are orphans. Pointers, which are
            by image alone, are looked at only then.
        """
        read_up_to = self._still.read_up_to
        ledgers = {tenant: Ledger() for tenant in tenants}
        only = None if is_all else set(tenants)
        async with aclosing(self._row_orphans.walk(only, self._at[1])) as rows:
            async for row in rows:
                ledger = ledgers.setdefault(row.tenantId, Ledger())
                found = self._row_orphaned(row, ledger)
                yield await self._finding(row.tenantId, ledger, row.imageId, found)
        if is_all:
            async with aclosing(self._orphans.pointers(self._at[1])) as pointers:
                async for tenant, image_id, found in pointers:
                    ledger = ledgers.setdefault(tenant, Ledger())
                    yield await self._finding(tenant, ledger, image_id, found)
            if self._services.vectors is not None:
                # Storage knows nobody of whom it has nothing.
                for tenant in await self._services.vectors.tenants():
                    ledgers.setdefault(tenant, Ledger())
        total = Ledger()
        for tenant, ledger in ledgers.items():
            self._at = (tenant, ledger)
            # Tombstones first: what is deleted meanwhile is counted once at the most.
            for walk in (self._deleted.walk, self._images, self._orphans.walk):
                async with aclosing(walk(tenant, ledger)) as findings:
                    async for image_id, found in findings:
                        yield await self._finding(tenant, ledger, image_id, found)
            total.add(ledger)
            yield {"type": "tenant", "tenantId": tenant, **ledger.as_wire()}
        yield {
            "type": "total",
            "tenants": len(ledgers),
            "vectorsChecked": self._services.vectors is not None,
            "readUpTo": None if read_up_to is None else wire_time(read_up_to),
            **total.as_wire(),
        }

    async def _finding(
        self, tenant: str, ledger: Ledger, image_id: str, found: Found
    ) -> dict[str, Any]:
        """Count what was found, mend it if that is asked for, and return its line."""
        fault, detail, repair = found
        ledger.faults[fault.value] += 1
        repaired = self._repair and repair is not None
        if repaired and repair is not None:
            await repair()
            ledger.repaired += 1
        return {
            "type": "finding",
            "tenantId": tenant,
            "imageId": image_id,
            "fault": fault,
            "detail": detail,
            "repaired": repaired,
        }

    def _row_orphaned(self, row: ImageRow, ledger: Ledger) -> Found:
        # An outcome of nothing that was accepted.
        ledger.counts[column(row)] += 1

        async def repair() -> None:
            # Storage that does not work is no proof: it looks as if it had nothing.
            await self._services.storage.ping()
            await self._publish(dropped(row))
            ledger.counts[column(row)] -= 1

        return (Fault.ROW_ORPHANED, f"its row says {row.status}", repair)

    # What storage has ---------------------------------------------------------------------

    async def _images(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        survey = self._services.storage.survey(tenant=tenant)
        async with aclosing(pages_of(survey)) as pages:
            async for page in pages:
                ledger.checked += len(page)
                for found in await self._checked(tenant, page, ledger):
                    yield found

    async def _checked(
        self, tenant: str, page: list[tuple[str, StoredImage | None]], ledger: Ledger
    ) -> list[tuple[str, Found]]:
        self._still.note()
        rows = await rows_of(self._rows, tenant, page)
        done = [each for each, row in rows.items() if row.status == ImageState.COMPLETED]
        there = await self._there(tenant, done)
        findings = []
        for image_id, image in page:
            outcome, found = await self._looked_at(image, rows.get(image_id), there, ledger)
            if found is not None and await self._is_deleted(image_id):
                outcome, found = ImageState.DELETED, None
            elif found is not None and image is not None:
                uploaded_at = image.uploadedAt
                if not await is_stored(self._services, tenant, image_id, uploaded_at):
                    continue  # refused, or purged with its tenant, while it was looked at
            ledger.accept(outcome)
            if found is not None:
                findings.append((image_id, found))
        return findings

    async def _is_deleted(self, image_id: str) -> bool:
        """Tell whether it was deleted, perhaps while it was looked at."""
        return await self._services.tombstones.find(image_id) is not None

    async def _there(self, tenant: str, image_ids: list[str]) -> set[str] | None:
        """Return those that have a vector of their first model; None where nobody can tell."""
        if self._services.vectors is None:
            return None
        return await self._services.vectors.present(
            image_ids, tenant=tenant, model=self._services.model.name
        )

    async def _looked_at(
        self,
        image: StoredImage | None,
        row: ImageRow | None,
        there: set[str] | None,
        ledger: Ledger,
    ) -> tuple[str, Found | None]:
        """Return where an image counts, and what is wrong with it."""
        if image is None:
            return UNKNOWN, (Fault.METADATA_DAMAGED, "its metadata object cannot be read", None)
        if row is not None and row.status == ImageState.DELETED:
            return UNKNOWN, (Fault.STUCK, "it is stored, and its row says deleted", None)
        found = await self._fault(image, row, there, self._again(image, row, ledger))
        if row is None:
            return UNKNOWN if self._still.has(image.uploadedAt) else IN_FLIGHT, found
        return column(row), found

    async def _fault(
        self, image: StoredImage, row: ImageRow | None, there: set[str] | None, again: Repair
    ) -> Found | None:
        state = row.status if row is not None else ImageState.UPLOADED
        size = await self._services.storage.size(tenant=image.tenantId, key=image.originalKey)
        if size is None:
            return (Fault.ORIGINAL_MISSING, f"{image.originalKey} is not there", None)
        model = self._services.model.name
        if state == ImageState.COMPLETED:
            has_model = model in (image.processingOptions.models or [])
            if there is not None and has_model and image.imageId not in there:
                return (Fault.VECTOR_MISSING, f"no vector of {model}", again)
        if row is not None and state in (ImageState.COMPLETED, ImageState.PARTIAL):
            if await self._lost_thumbnail(image, row):
                return (Fault.THUMBNAIL_MISSING, f"{image.thumbnailKey} is not there", again)
        elif state == ImageState.FAILED and row is not None:
            # The letter goes another way than the row, and may be later.
            if not await self._has_letter(row) and self._still.has(row.lastUpdated):
                code = row.errorCode or "unknown"
                return (Fault.LETTER_MISSING, f"it failed with {code}", again)
        elif state not in FINAL_STATES:
            moved, note = (row.lastUpdated, "") if row else (image.uploadedAt, "; it has no row")
            if self._still.has(moved):
                return (Fault.STUCK, f"nothing moved since {moved}{note}", again)
        return None

    async def _lost_thumbnail(self, image: StoredImage, row: ImageRow) -> bool:
        made = (Step.THUMBNAIL_GENERATION, StepStatus.COMPLETED)
        if not any((step.step, step.status) == made for step in row.steps):
            return False
        storage = self._services.storage
        return await storage.size(tenant=image.tenantId, key=image.thumbnailKey) is None

    async def _has_letter(self, row: ImageRow) -> bool:
        for step in row.steps:
            if step.status == StepStatus.FAILED and step.step in set(Step):
                asked = event_id(row, Step(step.step), step.modelName, step.generation)
                known = letter_id(row.tenantId, step.step, asked)
                if await self._services.letters.find(known) is not None:
                    return True
        return False

    def _again(self, image: StoredImage, row: ImageRow | None, ledger: Ledger) -> Repair:
        """Return what processes an image anew, as its next generation."""

        async def repair() -> None:
            event = uploaded_event(image)
            if row is not None:
                event.generation = row.generation + 1
                event.eventId = event_id(image, Step.IMAGE_PROCESSING, None, event.generation)
                event.timestamp = utc_now()
            steps = [report(Step.IMAGE_PROCESSING, StepStatus.PENDING)]
            # In this order, as for a retry.
            await self._publish(Message(UPLOADED, event))
            await self._publish(progress(event, steps, image))
            if row is None:
                ledger.settle(IN_FLIGHT)

        return repair
