"""What an audit looks at of dead letters: each can be read, is found, and waits for a reason."""

from collections.abc import AsyncGenerator
from contextlib import suppress

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.guard import judged
from deeplens_streams.audit.kept_objects import Kept, walk_kept
from deeplens_streams.audit.lost_parts import LostParts
from deeplens_streams.audit.removal import Removal
from deeplens_streams.audit.report import Finding, Ledger, NotRepaired
from deeplens_streams.audit.sightings import Part, Sighting
from deeplens_streams.identifiers import check_image_id
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.dead_letters import parsed_letter
from deeplens_streams.storage.image_objects import DamagedMetadata, OtherVersion
from models.audit import Fault
from models.events import utc_now
from models.letters import DeadLetter, LetterState
from models.status import ImageState
from models.trash import TrashKind


class Letters:
    """Dead letters of a tenant. None is closed whose image is there and has not moved on."""

    def __init__(self, context: AuditContext, lost: LostParts) -> None:
        self._context, self._services = context, context.services
        self._lost, self._removal = lost, Removal(context)

    def walk(self, tenant: str, ledger: Ledger) -> AsyncGenerator[Finding]:
        return walk_kept(
            object_keys.letter_folder(tenant),
            tenant,
            self._context,
            ledger,
            parts=self._parts,
            judge=self._gone,
        )

    async def _parts(
        self, tenant: str, keys: list[str], told: list[Finding]
    ) -> AsyncGenerator[Part[Kept[DeadLetter]]]:
        """Yield each that waits and has not moved on; what is wrong with others is `told`."""
        for key in keys:
            if object_keys.read_dated_key(key) is None:
                continue
            waiting = list[DeadLetter]()
            work = self._judge(tenant, key, waiting)
            told += await judged(key, "", work, self._services)
            for letter in waiting:
                yield Part(letter.imageId or "", Kept(key, letter), _uploaded_at(letter))

    async def _judge(self, tenant: str, key: str, waiting: list[DeadLetter]) -> list[Finding]:
        raw = await self._services.inventory.read(key)
        if raw is None:
            return []
        try:
            letter = parsed_letter(key, raw)
        except OtherVersion:  # for that one to mend
            raise
        except DamagedMetadata:
            why = "it cannot be read"
            repair = self._removal.object(
                key, tenant=tenant, image_id=None, kind=TrashKind.LETTER, why=why, known=raw
            )
            return [Finding("", Fault.LETTER_DAMAGED, f"{key}: {why}", repair)]
        found = await self._pointer_fault(letter, key)
        if letter.state == LetterState.WAITING and letter.imageId is not None:
            letter.imageId = check_image_id(letter.imageId)
            row = await self._lost.row(tenant, letter.imageId)
            if row is not None and row.generation > letter.generation:
                found.append(self._close(key, letter, "the image has moved on"))
            else:
                waiting.append(letter)
        return found

    async def _pointer_fault(self, letter: DeadLetter, key: str) -> list[Finding]:
        found = await self._services.letters.find(letter.letterId)
        if found is not None:
            return []

        async def repair() -> None:
            await self._services.letters.point(letter, key)

        detail = f"the ID of dead letter {letter.letterId} does not lead to it"
        return [Finding(letter.imageId or "", Fault.POINTER_MISSING, detail, repair)]

    async def _gone(
        self, tenant: str, part: Part[Kept[DeadLetter]], sighting: Sighting
    ) -> list[Finding]:
        image_id = part.image_id
        if sighting is Sighting.NOTHING:
            row = await self._lost.row(tenant, image_id)
            if row is not None and row.status != ImageState.DELETED:
                return []  # its row tells of it
            if await self._lost.has_vector(tenant, image_id):
                return []
            if row is None and await self._has_original(tenant, part):
                return []  # which tells of it
        return [self._close(part.item.key, part.item.said, "the image is gone")]

    async def _has_original(self, tenant: str, part: Part[Kept[DeadLetter]]) -> bool:
        """Tell whether the image's bytes are where its event or its pointer says."""
        image_id, moments = part.image_id, set[int]()
        with suppress(ValueError):  # an event may say anything
            moments.add(object_keys.epoch_ms(part.uploaded_at or ""))
        pointer = await self._context.sightings.pointer(image_id)
        if pointer is not None and pointer.tenant == tenant:
            moments.add(pointer.ms)
        for ms in moments:
            if await self._services.inventory.find_original(
                tenant=tenant, image_id=image_id, ms=ms
            ):
                return True
        return False

    def _close(self, key: str, letter: DeadLetter, why: str) -> Finding:
        async def repair() -> None:
            services = self._services
            # 1. a copy, 2. what became of it
            kept = await services.trash.copy(
                key,
                kind=TrashKind.LETTER,
                tenant=letter.tenantId,
                image_id=letter.imageId,
                why=self._context.why(why),
            )
            if kept is None:
                return  # somebody removed it
            letter.state, letter.reason = LetterState.SUPERSEDED.value, why
            letter.resolvedAt = utc_now()
            if not await services.letters.resolve(letter, key=key):
                await services.trash.remove(kept)
                raise NotRepaired("somebody else has it in hand; audit again when that is done")

        return Finding(letter.imageId or "", Fault.LETTER_ORPHANED, why, repair)


def _uploaded_at(letter: DeadLetter) -> str | None:
    """Return when the letter's event says that its image was uploaded; it may say anything."""
    data = (letter.originalEvent or {}).get("data")
    at = data.get("uploadedAt") if isinstance(data, dict) else None
    return at if isinstance(at, str) else None
