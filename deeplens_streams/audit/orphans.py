"""What belongs to no image: vectors, claims of bytes, half writes."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.guard import judged, reason_of
from deeplens_streams.audit.kept_objects import Kept, walk_kept
from deeplens_streams.audit.lost_parts import LostParts
from deeplens_streams.audit.removal import Removal
from deeplens_streams.audit.report import PAGE, Finding, Ledger
from deeplens_streams.audit.settled import is_old
from deeplens_streams.audit.sightings import Part, Sighting
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.duplicate_claims import Claim, read_claim
from deeplens_streams.vectors import VectorStore
from models.audit import Fault
from models.status import ImageState
from models.trash import TrashKind


class Vectors:
    """Vectors of every model: one of an older model is somebody's as long as its image."""

    def __init__(self, context: AuditContext, lost: LostParts) -> None:
        self._context, self._services = context, context.services
        self._lost, self._removal = lost, Removal(context)

    async def walk(self, tenant: str, ledger: Ledger) -> AsyncGenerator[Finding]:
        vectors = self._services.vectors
        if vectors is None:
            return
        models, unread = list[str](), list[Finding]()
        key = f"the vectors of {tenant}"
        work = self._models(vectors, tenant, models)
        for found in await judged(key, "", work, self._services):
            yield found
        for index, model in enumerate(models):
            place = _Place(vectors, tenant, model, tuple(models[:index]))
            damaged = list[str]()
            parts = self._parts(place, ledger, damaged, unread)
            async with aclosing(self._context.sightings.unseen(tenant, parts)) as unseen:
                async for part, sighting in unseen:
                    key = f"the vector of {model}"
                    work = self._judge(place, part, sighting, ledger)
                    for found in await judged(key, part.image_id, work, self._services):
                        yield found
            for point in damaged:
                detail = f"the payload of point {point} of {model} names no image"
                yield Finding("", Fault.UNREADABLE, detail)
        for found in unread:
            yield found

    async def _models(self, vectors: VectorStore, tenant: str, into: list[str]) -> list[Finding]:
        into += await vectors.models_of(tenant=tenant)
        return []

    async def _parts(
        self, place: "_Place", ledger: Ledger, damaged: list[str], unread: list[Finding]
    ) -> AsyncGenerator[Part[None]]:
        after = None
        while True:
            try:
                page = await place.vectors.page(
                    tenant=place.tenant, model=place.model, limit=PAGE, after=after
                )
            except Exception as error:
                key = f"the vectors of {place.model}"
                reason = await reason_of(error, self._services, key=key)
                unread.append(Finding("", Fault.UNREADABLE, f"{key}: {reason}"))
                return
            ledger.checked += len(page.images) + len(page.damaged)
            damaged += page.damaged[: PAGE - len(damaged)]
            for image_id, uploaded_at in page.images:
                yield Part(image_id, None, uploaded_at)
            after = page.after
            if after is None:
                return

    async def _judge(
        self, place: "_Place", part: Part[None], sighting: Sighting, ledger: Ledger
    ) -> list[Finding]:
        tenant, image_id, detail = place.tenant, part.image_id, f"a vector of {place.model}"
        if sighting is Sighting.DELETED:
            if await self._lost.is_at_work(tenant, part):
                return []
            gone = self._removal.deleted_vector(
                place.vectors, tenant=tenant, model=place.model, image_id=image_id
            )
            return [Finding(image_id, Fault.VECTOR_ORPHANED, detail, gone)]
        row = await self._lost.row(tenant, image_id)
        is_ended = row is not None and row.status == ImageState.DELETED
        if (row is not None and not is_ended) or not await place.has(image_id):
            return []  # its row tells of it, or it is gone meanwhile
        why = "its row says that it was deleted" if is_ended else None
        if await self._context.sightings.is_elsewhere(tenant, image_id):
            why = "its image is another tenant's"
        elif await self._lost.went_with_tenant(tenant, part.uploaded_at):
            why = "its tenant was deleted"
        if why is not None:
            repair = self._removal.vector(
                place.vectors, tenant=tenant, model=place.model, image_id=image_id, why=why
            )
            return [Finding(image_id, Fault.VECTOR_ORPHANED, f"{detail}; {why}", repair)]
        if await place.was_told(image_id):
            return []
        return [self._lost.found(tenant, image_id, ledger, times=(part.uploaded_at or "",))]


@dataclass(frozen=True, slots=True)
class _Place:
    """A collection; `told` are models of whom the vectors were looked at before."""

    vectors: VectorStore
    tenant: str
    model: str
    told: tuple[str, ...]

    async def has(self, image_id: str, model: str | None = None) -> bool:
        model = model or self.model
        return bool(await self.vectors.present([image_id], tenant=self.tenant, model=model))

    async def was_told(self, image_id: str) -> bool:
        """Tell whether the image was found by the vector of another model."""
        for model in self.told:
            if await self.has(image_id, model):
                return True
        return False


class Claims:
    """Claims of bytes whose image is gone, or that nobody can read."""

    def __init__(self, context: AuditContext, lost: LostParts) -> None:
        self._context, self._services = context, context.services
        self._lost, self._removal = lost, Removal(context)

    def walk(self, tenant: str, ledger: Ledger) -> AsyncGenerator[Finding]:
        return walk_kept(
            object_keys.claim_folder(tenant),
            tenant,
            self._context,
            ledger,
            parts=self._parts,
            judge=self._judge,
        )

    async def _parts(
        self, tenant: str, keys: list[str], told: list[Finding]
    ) -> AsyncGenerator[Part[Kept[Claim]]]:
        """Yield each that can be read; what is wrong with others is `told`."""
        for key in keys:
            if not object_keys.is_checksum(_checksum(key)):
                continue
            read = list[Claim]()
            told += await judged(key, "", self._read(tenant, key, read), self._services)
            for claim in read:
                yield Part(claim.image_id, Kept(key, claim), claim.uploaded_at)

    async def _read(self, tenant: str, key: str, into: list[Claim]) -> list[Finding]:
        raw = await self._services.inventory.read(key)
        if raw is None:
            return []
        claim = read_claim(raw)
        if claim.image_id:
            into.append(claim)
            return []
        detail = f"of {_checksum(key)}; it cannot be read"
        repair = self._removal.object(
            key,
            tenant=tenant,
            image_id=None,
            kind=TrashKind.CLAIM,
            why="it cannot be read",
            known=raw,
        )
        return [Finding("", Fault.CLAIM_ORPHANED, detail, repair)]

    async def _judge(
        self, tenant: str, part: Part[Kept[Claim]], sighting: Sighting
    ) -> list[Finding]:
        key, claim = part.item.key, part.item.said
        if not is_old(datetime.fromisoformat(claim.at)):
            return []
        if sighting is Sighting.DELETED and await self._lost.is_at_work(tenant, part):
            return []
        if sighting is Sighting.NOTHING and await self._lost.has_parts(
            tenant, claim.image_id, claim.uploaded_at
        ):
            return []  # which tell of it
        detail = f"of {_checksum(key)}"
        repair = self._removal.object(
            key,
            tenant=tenant,
            image_id=claim.image_id,
            kind=TrashKind.CLAIM,
            why="its image is gone",
            known=claim.raw,
        )
        return [Finding(claim.image_id, Fault.CLAIM_ORPHANED, detail, repair)]


class UnfinishedWrites:
    """What killed processes had half written."""

    def __init__(self, context: AuditContext) -> None:
        self._services, self._removal = context.services, Removal(context)

    async def walk(self, tenant: str, ledger: Ledger) -> AsyncGenerator[Finding]:
        writes = self._services.storage.walk_unfinished(tenant=tenant)
        async with aclosing(writes):
            async for key, at in writes:
                ledger.checked += 1
                if is_old(at):
                    image_id = object_keys.read_image_id(key)
                    repair = self._removal.listed(key, tenant=tenant)
                    yield Finding(image_id, Fault.WRITE_UNFINISHED, key, repair)


def _checksum(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")
