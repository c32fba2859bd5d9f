"""What an audit looks at of pointers: each leads to its image, and each image has one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.guard import judged, reason_of
from deeplens_streams.audit.removal import Removal
from deeplens_streams.audit.report import Finding, Ledger, pages_of
from deeplens_streams.audit.settled import is_old
from deeplens_streams.audit.sightings import AT_ONCE, COLLECTED, Sighting
from deeplens_streams.deletion.lost import models_of
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata, Pointer
from deeplens_streams.storage.object_keys import DatedKey
from models.audit import Fault
from models.status import ImageState
from models.trash import TrashKind


async def pointer_fault(dated: DatedKey, context: AuditContext) -> Finding | None:
    """Return what is wrong with the pointer of an image or a tombstone that was seen."""
    services = context.services

    async def repair() -> None:
        await services.inventory.point(dated.image_id, tenant=dated.tenant, ms=dated.ms)

    try:
        pointer = await services.inventory.pointer(dated.image_id)
    except DamagedMetadata:
        detail = "its pointer cannot be read"
        return Finding(dated.image_id, Fault.POINTER_DAMAGED, detail, repair)
    if pointer == Pointer(dated.tenant, dated.ms):
        return None
    if pointer is None:
        detail = "its ID alone does not lead to it"
        return Finding(dated.image_id, Fault.POINTER_MISSING, detail, repair)
    other = object_keys.time_of(pointer.ms)
    detail = f"its pointer leads to tenant {pointer.tenant}, {other}"
    if await context.sightings.is_elsewhere(dated.tenant, dated.image_id, dated.ms):
        # Which of them it is, nobody can tell here.
        return Finding(dated.image_id, Fault.POINTER_DAMAGED, f"{detail}, which is there, too")
    return Finding(dated.image_id, Fault.POINTER_DAMAGED, detail, repair)


class Pointers:
    """Pointers that lead to nothing: their uploads were killed, or what they led to is gone.

    They are kept by image alone, so everybody's are looked at together.
    """

    def __init__(self, context: AuditContext) -> None:
        self._context, self._services = context, context.services
        self._removal = Removal(context)

    async def walk(self, tenants: Sequence[str], ledger: Ledger) -> AsyncGenerator[Finding]:
        """Yield each pointer of no image, with the tenant that it names.

        Parameters
        ----------
        tenants : all that there are.
        """
        collected, unread = dict[str, Pointer | None](), list[Finding]()
        async with aclosing(pages_of(self._ids())) as pages:
            async for page in pages:
                ledger.checked += len(page)
                for start in range(0, len(page), AT_ONCE):
                    some = page[start : start + AT_ONCE]
                    looked = await asyncio.gather(*(self._quickly(each, unread) for each in some))
                    collected |= {each: led for each, led, ok in looked if not ok}
                while unread:
                    yield unread.pop()
                if len(collected) >= COLLECTED:
                    for found in await self._told(collected, tenants):
                        yield found
                    collected = {}
        for found in await self._told(collected, tenants):
            yield found

    async def _ids(self) -> AsyncGenerator[str]:
        async with aclosing(self._services.inventory.keys(object_keys.POINTERS)) as keys:
            async for key in keys:
                image_id = object_keys.read_pointer_key(key)
                if image_id is not None:  # else an object of the tenant that is called so
                    yield image_id

    async def _quickly(
        self, image_id: str, unread: list[Finding]
    ) -> tuple[str, Pointer | None, bool]:
        """Return whether a pointer leads to something; where it cannot be read, it does not.

        Of one that nobody can tell of, that is what is found.
        """
        try:
            pointer = await self._services.inventory.pointer(image_id)
            if pointer is None:  # gone meanwhile
                return image_id, None, True
            seen = await self._context.sightings.look(pointer.tenant, image_id, pointer.ms)
        except DamagedMetadata:
            return image_id, None, False
        except Exception as error:
            key = object_keys.pointer_key(image_id)
            reason = await reason_of(error, self._services, key=key)
            unread.append(Finding(image_id, Fault.UNREADABLE, f"{key}: {reason}"))
            return image_id, None, True
        return image_id, pointer, seen is not Sighting.NOTHING

    async def _told(
        self, collected: dict[str, Pointer | None], tenants: Sequence[str]
    ) -> list[Finding]:
        if not collected:
            return []
        seen = await self._context.sightings.seen(tenants, collected)
        found = list[Finding]()
        for image_id, pointer in collected.items():
            if image_id not in seen:
                key = object_keys.pointer_key(image_id)
                work = self._judge(image_id, pointer)
                found += await judged(key, image_id, work, self._services)
        return found

    async def _judge(self, image_id: str, pointer: Pointer | None) -> list[Finding]:
        key = object_keys.pointer_key(image_id)
        known = await self._services.inventory.read(key)
        # An upload stores the pointer before the metadata object.
        written = await self._services.inventory.written_at(key)
        if written is None or not is_old(written) or await self._has_parts(image_id, pointer):
            return []
        if not self._context.sightings.covers(written):
            return []
        tenant = pointer.tenant if pointer is not None else ""
        detail = "neither an image nor that it was deleted is stored"
        repair = self._removal.object(
            key, tenant=tenant, image_id=image_id, kind=TrashKind.POINTER, why=detail, known=known
        )
        return [Finding(image_id, Fault.POINTER_ORPHANED, detail, repair, tenant=tenant)]

    async def _has_parts(self, image_id: str, pointer: Pointer | None) -> bool:
        """Tell whether something of the image is there, which is told of where it is found."""
        row = (await self._context.rows.rows([image_id])).get(image_id)
        if row is not None and row.status != ImageState.DELETED:
            return True
        if pointer is None:
            return False
        tenant, services = pointer.tenant, self._services
        original = await services.inventory.find_original(
            tenant=tenant, image_id=image_id, ms=pointer.ms
        )
        if original is not None:
            return True
        if services.vectors is None:
            return False
        for model in await models_of(services, tenant=tenant, row=None):
            if await services.vectors.present([image_id], tenant=tenant, model=model):
                return True
        return False
