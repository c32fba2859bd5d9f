"""What an audit looks at of images that storage has: whether all of each is there."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.duplicate_claims import claim_fault
from deeplens_streams.audit.guard import judged, unless_damaged
from deeplens_streams.audit.lost_original import Lost
from deeplens_streams.audit.pointers import pointer_fault
from deeplens_streams.audit.rebuild import Rebuilding
from deeplens_streams.audit.removal import Removal
from deeplens_streams.audit.report import (
    IN_FLIGHT,
    UNKNOWN,
    Finding,
    Ledger,
    Mended,
    Repair,
    column,
    pages_of,
    rows_of,
)
from deeplens_streams.audit.reprocess import process_again, revive
from deeplens_streams.audit.sightings import AT_ONCE
from deeplens_streams.imaging.preprocessing import PREPROCESSING, version_of
from deeplens_streams.pipeline.dead_letters import letter_id
from deeplens_streams.pipeline.requests import event_id
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata, OtherVersion
from deeplens_streams.storage.measured import measured
from deeplens_streams.storage.object_keys import DatedKey
from models.audit import Fault
from models.images import StoredImage
from models.status import FINAL_STATES, Ending, ImageRow, ImageState, Step, StepStatus
from models.trash import TrashKind

#: Of an image whose bytes are not there: who uploads them is to get another.
_OF_BYTES = frozenset({Fault.ORIGINAL_MISSING, Fault.ORIGINAL_DAMAGED})
#: How a JPEG begins and ends.
_JPEG_HEAD, _JPEG_TAIL = b"\xff\xd8\xff", b"\xff\xd9"
#: By image that has a vector of its first model, which preprocessing made it; None where nobody can
#: tell.
Vectors = dict[str, int] | None


class Images:
    """Metadata objects, and what belongs to each."""

    def __init__(self, context: AuditContext) -> None:
        self._context, self._services = context, context.services
        self._settled, self._rows = context.settled_before(), context.rows
        self._rebuilding, self._removal = Rebuilding(context), Removal(context)

    async def walk(self, tenant: str, ledger: Ledger) -> AsyncGenerator[Finding]:
        """Count a tenant's, and yield what is wrong with them."""
        keys = self._services.inventory.images(tenant=tenant)
        async with aclosing(pages_of(keys)) as pages:
            async for page in pages:
                ledger.checked += len(page)
                for found in await self._page(tenant, page, ledger):
                    yield found

    async def _page(self, tenant: str, page: list[DatedKey], ledger: Ledger) -> list[Finding]:
        self._settled.snapshot()
        rows = await rows_of(self._rows, tenant, [each.image_id for each in page])
        done = [each for each, row in rows.items() if row.status == ImageState.COMPLETED]
        there = await self._there(tenant, done)
        found = list[Finding]()
        for start in range(0, len(page), AT_ONCE):
            looked = await asyncio.gather(
                *(
                    judged(
                        dated.key,
                        dated.image_id,
                        self._judge(dated, rows.get(dated.image_id), there, ledger),
                        self._services,
                        failed=lambda: ledger.accept(UNKNOWN),
                    )
                    for dated in page[start : start + AT_ONCE]
                )
            )
            found += [each for some in looked for each in some]
        return found

    async def _there(self, tenant: str, image_ids: list[str]) -> Vectors:
        """Return which preprocessing made the vectors of those that have one."""
        vectors, model = self._services.vectors, self._services.model.name
        if vectors is None:
            return None
        there = vectors.preprocessing(image_ids, tenant=tenant, model=model)
        # The walk of vectors says so.
        return await unless_damaged(there, None, self._services, key=f"the vectors of {model}")

    async def _judge(
        self, dated: DatedKey, row: ImageRow | None, there: Vectors, ledger: Ledger
    ) -> list[Finding]:
        """Return what is wrong with an image, and count it."""
        inventory = self._services.inventory
        try:
            image = await inventory.image(dated)
        except OtherVersion:  # for that one to mend
            raise
        except DamagedMetadata:
            return await self._damaged(dated, row, ledger)
        if image is None:
            return []
        outcome, fault = await self._looked_at(image, row, there, ledger)
        found = [await pointer_fault(dated, self._context), fault]
        has_bytes = fault is None or fault.fault not in _OF_BYTES
        if has_bytes and self._settled.covers(
            image.uploadedAt
        ):  # it is confirmed behind the answer
            found.append(await claim_fault(image, row, self._context))
        wrong = [each for each in found if each is not None]
        if wrong and await self._is_deleted(dated):
            outcome, wrong = ImageState.DELETED, []
        elif wrong and not await inventory.has(dated.key):
            return []  # refused, or purged with its tenant, while it was looked at
        ledger.accept(outcome)
        return wrong

    async def _damaged(
        self, dated: DatedKey, row: ImageRow | None, ledger: Ledger
    ) -> list[Finding]:
        if await self._is_deleted(dated):
            ledger.accept(ImageState.DELETED)
            return []
        times = (row.uploadedAt,) if row is not None else ()
        lost = Lost(dated.tenant, dated.image_id, row, times, damaged_key=dated.key)
        if await self._rebuilding.is_seen(lost):
            why = "it cannot be read, and the image has another one"
            repair = self._removal.object(
                dated.key,
                tenant=dated.tenant,
                image_id=dated.image_id,
                kind=TrashKind.METADATA,
                why=why,
            )
            return [Finding(dated.image_id, Fault.METADATA_DAMAGED, f"{dated.key}: {why}", repair)]
        ledger.accept(UNKNOWN)

        async def rebuild() -> Mended:
            made = await self._rebuilding.repair(lost)
            if row is None or row.status not in FINAL_STATES - {ImageState.DELETED}:
                ledger.settle(IN_FLIGHT)  # it is processed anew
                return Mended(note=made.doubt)
            ledger.settle(column(row))
            there = await self._there(dated.tenant, [dated.image_id])
            again = self._again(made.image, row, ledger)
            fault = await self._fault(made.image, row, there, again)
            return Mended([] if fault is None else [fault], made.doubt)

        found = await pointer_fault(dated, self._context)
        detail = "its metadata object cannot be read"
        damaged = Finding(dated.image_id, Fault.METADATA_DAMAGED, detail, rebuild)
        return [damaged] if found is None else [found, damaged]

    async def _is_deleted(self, dated: DatedKey) -> bool:
        """Tell whether it was deleted, perhaps while it was looked at."""
        key = object_keys.tombstone_key(tenant=dated.tenant, image_id=dated.image_id, ms=dated.ms)
        return await self._services.inventory.has(key)

    async def _looked_at(
        self,
        image: StoredImage,
        row: ImageRow | None,
        there: Vectors,
        ledger: Ledger,
    ) -> tuple[str, Finding | None]:
        """Return where an image counts, and what is wrong with it."""
        if row is not None and row.status == ImageState.DELETED:
            return UNKNOWN, self._said_to_be_deleted(image, row, ledger)
        found = await self._fault(image, row, there, self._again(image, row, ledger))
        if row is None:
            return UNKNOWN if self._settled.covers(image.uploadedAt) else IN_FLIGHT, found
        if found is None and row.status == ImageState.COMPLETED:
            found = self._outdated(image, row, there, ledger)
        return column(row), found

    def _outdated(
        self, image: StoredImage, row: ImageRow, there: Vectors, ledger: Ledger
    ) -> Finding | None:
        """Count an image that an older preprocessing looked at; where asked, that is a fault."""
        facts = version_of(image.metadata.preprocessingVersion)
        vector = PREPROCESSING if there is None else there.get(image.imageId, PREPROCESSING)
        if min(facts, vector) >= PREPROCESSING:
            return None
        ledger.outdated += 1
        if not self._context.outdated:
            return None

        async def repair() -> None:
            await self._rebuilding.refresh(image)
            await process_again(image, row, self._context.publish)

        made = "its vector was made" if vector < PREPROCESSING else "its header was read"
        by = f"by preprocessing {min(facts, vector)}"
        when = by if min(facts, vector) else "before preprocessing had a version"
        detail = f"{made} {when}; now it is {PREPROCESSING}"
        return Finding(image.imageId, Fault.OUTDATED, detail, repair)

    def _said_to_be_deleted(self, image: StoredImage, row: ImageRow, ledger: Ledger) -> Finding:
        async def repair() -> None:
            await revive(image, row, self._context.publish)
            ledger.settle(IN_FLIGHT)

        detail = "it is stored, and its row says deleted"
        if row.ending != Ending.DROPPED:
            # Storage may be older than the row: what somebody deleted is not to come back.
            detail += "; delete it again, or have deeplens restore bring its tombstone back"
            return Finding(image.imageId, Fault.STUCK, detail)
        may_move = not self._settled.covers(row.lastUpdated)
        return Finding(image.imageId, Fault.STUCK, detail, None if may_move else repair)

    async def _fault(
        self, image: StoredImage, row: ImageRow | None, there: Vectors, again: Repair
    ) -> Finding | None:
        def found(fault: Fault, detail: str, repair: Repair | None = None) -> Finding:
            return Finding(image.imageId, fault, detail, repair)

        state = row.status if row is not None else ImageState.UPLOADED
        if (damage := await self._damage_of_original(image)) is not None:
            return found(*damage)
        if state == ImageState.COMPLETED and self._lacks_vector(image, there):
            return found(Fault.VECTOR_MISSING, f"no vector of {self._services.model.name}", again)
        if row is not None and state in (ImageState.COMPLETED, ImageState.PARTIAL):
            lost = await self._damage_of_thumbnail(image, row)
            if lost is not None:
                return found(lost[0], f"{image.thumbnailKey} {lost[1]}", again)
        elif state == ImageState.FAILED and row is not None:
            # The letter goes another way than the row, and may be later.
            if not await self._has_letter(row) and self._settled.covers(row.lastUpdated):
                why = f"it failed with {row.errorCode or 'unknown'}"
                return found(Fault.LETTER_MISSING, why, again)
        elif state not in FINAL_STATES:
            moved, note = (row.lastUpdated, "") if row else (image.uploadedAt, "; it has no row")
            if self._settled.covers(moved):
                return found(Fault.STUCK, f"nothing moved since {moved}{note}", again)
        return None

    def _lacks_vector(self, image: StoredImage, there: Vectors) -> bool:
        has_model = self._services.model.name in (image.processingOptions.models or [])
        return there is not None and has_model and image.imageId not in there

    async def _damage_of_original(self, image: StoredImage) -> tuple[Fault, str] | None:
        key = image.originalKey
        size = await self._services.storage.size(tenant=image.tenantId, key=key)
        if size is None:
            return Fault.ORIGINAL_MISSING, f"{key} is not there"
        if size != image.fileSize:
            return Fault.ORIGINAL_DAMAGED, f"{key} has {size} of {image.fileSize} bytes"
        if self._context.checksums:
            found = await measured(self._services.storage.stream(tenant=image.tenantId, key=key))
            if found.sha256 != image.checksumSha256:
                return Fault.ORIGINAL_DAMAGED, f"{key} has other bytes than were uploaded"
        return None

    async def _damage_of_thumbnail(
        self, image: StoredImage, row: ImageRow
    ) -> tuple[Fault, str] | None:
        made = (Step.THUMBNAIL_GENERATION, StepStatus.COMPLETED)
        if not any((step.step, step.status) == made for step in row.steps):
            return None
        data = await self._services.storage.get(tenant=image.tenantId, key=image.thumbnailKey)
        if data is None:
            return Fault.THUMBNAIL_MISSING, "is not there"
        if not data:
            return Fault.THUMBNAIL_DAMAGED, "is empty"
        if not (data.startswith(_JPEG_HEAD) and data.endswith(_JPEG_TAIL)):
            return Fault.THUMBNAIL_DAMAGED, "is no whole JPEG"
        return None

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
            await process_again(image, row, self._context.publish)
            if row is None:
                ledger.settle(IN_FLIGHT)

        return repair
