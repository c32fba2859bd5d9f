"""The ledger: accepted = completed + partial + failed + deleted + in flight; and what is wrong.

Everything is walked in pages, so the memory it takes does not depend on how much there is. What
it finds while pictures are on their way is looked at twice where a moment could explain it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Protocol

from deeplens_streams import deletion
from deeplens_streams.ledger import GRACE_S, PAGE, Fault, Found, Ledger, Repair
from deeplens_streams.letters import letter_id
from deeplens_streams.orphans import Orphans, Rows
from deeplens_streams.replay import Publish, event_id, uploaded_event
from deeplens_streams.reports import progress, report
from deeplens_streams.services import Services
from deeplens_streams.topics import UPLOADED, Message
from models.deletion import Tombstone
from models.events import utc_now
from models.images import StoredImage
from models.status import FINAL_STATES, ImageRow, ImageState, Step, StepStatus


class Unread(Protocol):
    """Events that some stage has still to read; None while that is not known."""

    @property
    def unread(self) -> int | None: ...


class Audit:
    """Compares storage, status table, vectors and dead letters."""

    def __init__(
        self, services: Services, rows: Rows, publish: Publish, backlog: Unread, *, repair: bool
    ) -> None:
        self._services, self._rows, self._publish = services, rows, publish
        self._backlog, self._repair = backlog, repair

    async def run(self, tenants: list[str]) -> AsyncGenerator[dict[str, Any]]:
        """Yield what is found, the ledger of each tenant, and the ledger of all."""
        total = Ledger()
        for tenant in tenants:
            ledger = Ledger()
            orphans = Orphans(self._services, self._rows)
            for walk in (self._images, self._tombstones, orphans.walk):
                async with aclosing(walk(tenant, ledger)) as findings:
                    async for image_id, found in findings:
                        yield await self._said(tenant, ledger, image_id, found)
            total.add(ledger)
            yield {"type": "tenant", "tenantId": tenant, **ledger.as_wire()}
        yield {
            "type": "total",
            "tenants": len(tenants),
            "vectorsChecked": self._services.vectors is not None,
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

    # What storage has ---------------------------------------------------------------------

    async def _images(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        page: list[StoredImage] = []
        async with aclosing(self._services.storage.walk_images(tenant=tenant)) as images:
            async for image in images:
                page.append(image)
                if len(page) == PAGE:
                    for found in await self._checked(tenant, page, ledger):
                        yield found
                    page = []
        for found in await self._checked(tenant, page, ledger):
            yield found

    async def _checked(
        self, tenant: str, page: list[StoredImage], ledger: Ledger
    ) -> list[tuple[str, Found]]:
        rows = await self._rows.rows([image.imageId for image in page])
        done = [
            image
            for image in page
            if (row := rows.get(image.imageId)) is not None and row.status == ImageState.COMPLETED
        ]
        there = await self._there(tenant, done)
        findings = []
        for image in page:
            row = rows.get(image.imageId)
            state = ImageState(row.status) if row is not None else ImageState.UPLOADED
            if state is ImageState.DELETED:
                continue  # its deletion is at work; the tombstone is counted
            ledger.counts["accepted"] += 1
            ledger.counts[state.value if state in FINAL_STATES else "inFlight"] += 1
            found = await self._fault(image, row, state, there)
            if found is not None and not await self._is_deleted(image):
                findings.append((image.imageId, found))
        return findings

    async def _is_deleted(self, image: StoredImage) -> bool:
        """Tell whether it was deleted while it was looked at."""
        return await self._services.tombstones.find(image.imageId) is not None

    async def _there(self, tenant: str, images: list[StoredImage]) -> set[str] | None:
        """Return those that have a vector of their first model; None where nobody can tell."""
        if self._services.vectors is None:
            return None
        ids = [image.imageId for image in images]
        return await self._services.vectors.present(
            ids, tenant=tenant, model=self._services.model.name
        )

    async def _fault(
        self, image: StoredImage, row: ImageRow | None, state: ImageState, there: set[str] | None
    ) -> Found | None:
        size = await self._services.storage.size(tenant=image.tenantId, key=image.originalKey)
        if size is None:
            return (Fault.ORIGINAL_MISSING, f"{image.originalKey} is not there", None)
        model = self._services.model.name
        if state is ImageState.COMPLETED:
            has_model = model in (image.processingOptions.models or [])
            if there is not None and has_model and image.imageId not in there:
                return (Fault.VECTOR_MISSING, f"no vector of {model}", self._again(image, row))
        elif state is ImageState.FAILED and row is not None:
            # The letter goes another way than the row, and may be later.
            if not await self._has_letter(row) and self._is_still(row.lastUpdated, image):
                code = row.errorCode or "unknown"
                return (Fault.LETTER_MISSING, f"it failed with {code}", self._again(image, row))
        elif state not in FINAL_STATES and self._is_still(row.lastUpdated if row else None, image):
            since = row.lastUpdated if row else image.uploadedAt
            return (Fault.STUCK, f"nothing moved since {since}", self._again(image, row))
        return None

    async def _has_letter(self, row: ImageRow) -> bool:
        for step in row.steps:
            if step.status == StepStatus.FAILED:
                asked = event_id(row, Step(step.step), step.modelName, step.generation)
                if await self._services.letters.find(letter_id(step.step, asked)) is not None:
                    return True
        return False

    def _is_still(self, moved_at: str | None, image: StoredImage | Tombstone) -> bool:
        """Tell whether nothing can be under way for the image."""
        moved = datetime.fromisoformat(moved_at or image.uploadedAt)
        is_old = (datetime.now(UTC) - moved).total_seconds() > GRACE_S
        return is_old and self._backlog.unread == 0

    def _again(self, image: StoredImage, row: ImageRow | None) -> Repair:
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

        return repair

    # What is deleted ----------------------------------------------------------------------

    async def _tombstones(self, tenant: str, ledger: Ledger) -> AsyncGenerator[tuple[str, Found]]:
        async with aclosing(self._services.tombstones.walk(tenant=tenant)) as tombstones:
            async for tombstone in tombstones:
                ledger.counts["accepted"] += 1
                ledger.counts[ImageState.DELETED.value] += 1
                if tombstone.completedAt is None and self._is_still(
                    tombstone.requestedAt, tombstone
                ):
                    left = len(deletion.left(tombstone))
                    found = (
                        Fault.PURGE_UNFINISHED,
                        f"{left} steps are left",
                        self._purge(tombstone),
                    )
                    yield tombstone.imageId, found

    def _purge(self, tombstone: Tombstone) -> Repair:
        async def repair() -> None:
            await self._services.storage.remove_metadata(tombstone)
            await self._publish(*deletion.messages(tombstone))

        return repair
