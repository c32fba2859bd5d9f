"""The ledger: accepted = completed + partial + failed + deleted + in flight; and what is wrong.

What was accepted is told by storage, and what became of it by the status table. Everything is
walked in pages, so the memory it takes does not depend on how much there is. What it finds while
pictures are on their way is looked at twice where a moment could explain it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, TypeVar

from deeplens_streams import deletion
from deeplens_streams.ledger import (
    GRACE_S,
    IN_FLIGHT,
    PAGE,
    UNKNOWN,
    Fault,
    Found,
    Ledger,
    Repair,
    column,
)
from deeplens_streams.letters import letter_id
from deeplens_streams.orphans import AllRows, Backlog, Orphans, RowOrphans, Rows, dropped, is_stored
from deeplens_streams.replay import Publish, event_id, uploaded_event
from deeplens_streams.reports import progress, report
from deeplens_streams.services import Services
from deeplens_streams.topics import UPLOADED, Message
from models.deletion import Tombstone
from models.events import utc_now
from models.images import StoredImage
from models.status import FINAL_STATES, ImageRow, ImageState, Step, StepStatus

T = TypeVar("T")


class Audit:
    """Compares storage, status table, vectors and dead letters."""

    def __init__(
        self,
        services: Services,
        rows: Rows,
        all_rows: AllRows,
        publish: Publish,
        backlog: Backlog,
        *,
        repair: bool,
    ) -> None:
        self._services, self._rows, self._publish = services, rows, publish
        self._backlog, self._repair = backlog, repair
        self._row_orphans = RowOrphans(services, rows, all_rows, backlog)
        self._orphans = Orphans(services, rows)
        self._at: tuple[str | None, Ledger] = (None, Ledger())
        #: What moved last before it is not on its way; None while that is not known.
        self._still_before: datetime | None = None

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
        read_up_to = self._backlog.read_up_to
        ledgers = {tenant: Ledger() for tenant in tenants}
        only = None if is_all else set(tenants)
        async with aclosing(self._row_orphans.walk(only, self._at[1])) as rows:
            async for row in rows:
                ledger = ledgers.setdefault(row.tenantId, Ledger())
                found = self._row_orphaned(row, ledger)
                yield await self._said(row.tenantId, ledger, row.imageId, found)
        if is_all:
            async with aclosing(self._orphans.pointers(self._at[1])) as pointers:
                async for tenant, image_id, found in pointers:
                    ledger = ledgers.setdefault(tenant, Ledger())
                    yield await self._said(tenant, ledger, image_id, found)
        total = Ledger()
        for tenant, ledger in ledgers.items():
            self._at = (tenant, ledger)
            # Tombstones first: what is deleted meanwhile is counted once at the most.
            for walk in (self._tombstones, self._images, self._orphans.walk):
                async with aclosing(walk(tenant, ledger)) as findings:
                    async for image_id, found in findings:
                        yield await self._said(tenant, ledger, image_id, found)
            total.add(ledger)
            yield {"type": "tenant", "tenantId": tenant, **ledger.as_wire()}
        yield {
            "type": "total",
            "tenants": len(ledgers),
            "vectorsChecked": self._services.vectors is not None,
            "readUpTo": None
            if read_up_to is None
            else read_up_to.isoformat(timespec="milliseconds"),
            **total.as_wire(),
        }

    async def _said(
        self, tenant: str, ledger: Ledger, image_id: str, found: Found
    ) -> dict[str, Any]:
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
        async with aclosing(_pages(survey)) as pages:
            async for page in pages:
                ledger.checked += len(page)
                for found in await self._checked(tenant, page, ledger):
                    yield found

    async def _checked(
        self, tenant: str, page: list[tuple[str, StoredImage | None]], ledger: Ledger
    ) -> list[tuple[str, Found]]:
        self._note_still()
        rows = await self._rows_of(tenant, page)
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

    async def _rows_of(self, tenant: str, page: list[tuple[str, Any]]) -> dict[str, ImageRow]:
        """Return the rows of a tenant's images; one that names another tenant is none."""
        found = await self._rows.rows([image_id for image_id, _ in page])
        return {image_id: row for image_id, row in found.items() if row.tenantId == tenant}

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
            return UNKNOWN if self._is_still(None, image) else IN_FLIGHT, found
        return column(row), found

    async def _fault(
        self, image: StoredImage, row: ImageRow | None, there: set[str] | None, again: Repair
    ) -> Found | None:
        state = ImageState(row.status) if row is not None else ImageState.UPLOADED
        size = await self._services.storage.size(tenant=image.tenantId, key=image.originalKey)
        if size is None:
            return (Fault.ORIGINAL_MISSING, f"{image.originalKey} is not there", None)
        model = self._services.model.name
        if state is ImageState.COMPLETED:
            has_model = model in (image.processingOptions.models or [])
            if there is not None and has_model and image.imageId not in there:
                return (Fault.VECTOR_MISSING, f"no vector of {model}", again)
        if row is not None and state in (ImageState.COMPLETED, ImageState.PARTIAL):
            if await self._lost_thumbnail(image, row):
                return (Fault.THUMBNAIL_MISSING, f"{image.thumbnailKey} is not there", again)
        elif state is ImageState.FAILED and row is not None:
            # The letter goes another way than the row, and may be later.
            if not await self._has_letter(row) and self._is_still(row.lastUpdated, image):
                code = row.errorCode or "unknown"
                return (Fault.LETTER_MISSING, f"it failed with {code}", again)
        elif state not in FINAL_STATES and self._is_still(row.lastUpdated if row else None, image):
            since = (
                f"since {row.lastUpdated}" if row else f"since {image.uploadedAt}; it has no row"
            )
            return (Fault.STUCK, f"nothing moved {since}", again)
        return None

    async def _lost_thumbnail(self, image: StoredImage, row: ImageRow) -> bool:
        made = (Step.THUMBNAIL_GENERATION, StepStatus.COMPLETED)
        if not any((step.step, step.status) == made for step in row.steps):
            return False
        storage = self._services.storage
        return await storage.size(tenant=image.tenantId, key=image.thumbnailKey) is None

    async def _has_letter(self, row: ImageRow) -> bool:
        for step in row.steps:
            if step.status == StepStatus.FAILED:
                asked = event_id(row, Step(step.step), step.modelName, step.generation)
                known = letter_id(row.tenantId, step.step, asked)
                if await self._services.letters.find(known) is not None:
                    return True
        return False

    def _note_still(self) -> None:
        """Note what can be told to be still, before rows are read: they may move behind that."""
        at = self._backlog.read_up_to
        self._still_before = None if at is None else at - timedelta(seconds=GRACE_S)

    def _is_still(self, moved_at: str | None, image: StoredImage | Tombstone) -> bool:
        """Tell whether nothing can be under way for the image."""
        moved = datetime.fromisoformat(moved_at or image.uploadedAt)
        return self._still_before is not None and moved < self._still_before

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

    # What is deleted ----------------------------------------------------------------------

    async def _tombstones(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        survey = self._services.tombstones.survey(tenant=tenant)
        async with aclosing(_pages(survey)) as pages:
            async for page in pages:
                ledger.checked += len(page)
                self._note_still()
                rows = await self._rows_of(tenant, page)
                for image_id, tombstone in page:
                    is_told = (row := rows.get(image_id)) and row.status == ImageState.DELETED
                    found = await self._deleted(tenant, image_id, tombstone, bool(is_told), ledger)
                    if found is not None:
                        yield image_id, found

    async def _deleted(
        self,
        tenant: str,
        image_id: str,
        tombstone: Tombstone | None,
        is_told: bool,
        ledger: Ledger,
    ) -> Found | None:
        uploaded_at = tombstone.uploadedAt if tombstone else None
        has_image = await is_stored(self._services, tenant, image_id, uploaded_at)
        may_move = tombstone is not None and not self._is_still(tombstone.requestedAt, tombstone)
        outcome = ImageState.DELETED if is_told or may_move else UNKNOWN
        if not has_image:  # else it is counted as an image
            ledger.accept(outcome)
        if tombstone is None:
            return (Fault.METADATA_DAMAGED, "its tombstone cannot be read", None)
        left = len(deletion.left(tombstone))
        if may_move or not (left or has_image or not is_told):
            return None

        async def repair() -> None:
            await self._services.storage.remove_metadata(tombstone)
            await self._publish(*deletion.messages(tombstone))
            if not has_image and outcome == UNKNOWN:
                ledger.settle(ImageState.DELETED)

        detail = f"{left} steps are left" if left else "its row or its metadata do not say so"
        return (Fault.PURGE_UNFINISHED, detail, repair)


async def _pages(items: AsyncGenerator[T]) -> AsyncGenerator[list[T]]:
    page: list[T] = []
    async with aclosing(items):
        async for item in items:
            page.append(item)
            if len(page) == PAGE:
                yield page
                page = []
    if page:
        yield page
