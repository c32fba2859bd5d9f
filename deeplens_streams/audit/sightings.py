"""Whether an image is there or was deleted: by its metadata object or its tombstone alone.

A pointer is asked first because it is quick; what it does not lead to is looked for in listings
before anybody says that there is no such image. A tenant is listed once at the most.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from typing import Generic, TypeVar

from deeplens_streams.audit.disk_index import DiskIndex
from deeplens_streams.audit.guard import reason_of
from deeplens_streams.audit.report import PAGE
from deeplens_streams.audit.settled import is_old
from deeplens_streams.services import Services
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.image_objects import DamagedMetadata, Pointer
from deeplens_streams.storage.object_keys import DatedKey

#: Looked for at once.
AT_ONCE = 16
#: Objects that are looked at together where each is read.
COLLECTED = 500
#: Kinds of listings.
_IMAGES, _DELETED = "images", "deleted"

T = TypeVar("T")


class Sighting(Enum):
    """What there is of an image."""

    IMAGE = auto()
    """Its metadata object, be it damaged."""
    DELETED = auto()
    """Its tombstone, be it damaged."""
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """Something that names an image: a file, a vector, a letter, a claim, a row.

    Attributes
    ----------
    uploaded_at : when it says that its image was uploaded, ISO-8601; it may say anything.
    day : the one under which its image must lie, where that is certain.
    ms : the time of the tombstone that was seen.
    """

    image_id: str
    item: T
    uploaded_at: str | None = None
    day: str | None = None
    ms: int | None = None


class Sightings:
    """Looks for the images of parts, many at a time."""

    def __init__(self, services: Services, index: DiskIndex) -> None:
        self._services, self._inventory = services, services.inventory
        self._index = index
        self._listed_at: dict[str, datetime] = {}

    async def unseen(
        self, tenant: str, parts: AsyncGenerator[Part[T]]
    ) -> AsyncGenerator[tuple[Part[T], Sighting]]:
        """Yield those parts of whom no metadata object of the tenant's is there."""
        async with aclosing(self._without_image(tenant, parts)) as left:
            async for part, quick in left:
                sighting = quick
                if quick is Sighting.NOTHING:
                    sighting = await self._listed(tenant, part.image_id)
                if sighting is not Sighting.IMAGE:
                    yield part, sighting

    async def seen(self, tenants: Sequence[str], image_ids: Collection[str]) -> set[str]:
        """Return those of whom some tenant has metadata object or tombstone, by listings alone."""
        for tenant in tenants:
            await self._list(tenant)
        return {
            image_id
            for image_id in image_ids
            if self._index.said(_IMAGES, image_id) or self._index.said(_DELETED, image_id)
        }

    def covers(self, written: datetime, *, tenant: str | None = None) -> bool:
        """Tell whether the image of what was written then is in the listings, if it is there.

        They are as old as the first look into them: what was uploaded since is the next audit's.

        Parameters
        ----------
        tenant : only this one's are asked.
        """
        if tenant is None:
            return all(is_old(written, at=listed) for listed in self._listed_at.values())
        listed = self._listed_at.get(tenant)
        return listed is None or is_old(written, at=listed)

    async def look(self, tenant: str, image_id: str, ms: int) -> Sighting:
        """Tell what there is of an image that was uploaded then."""
        # In this order: who deletes an image writes the tombstone first.
        if await self._inventory.has(
            object_keys.metadata_key(tenant=tenant, image_id=image_id, ms=ms)
        ):
            return Sighting.IMAGE
        if await self._inventory.has(
            object_keys.tombstone_key(tenant=tenant, image_id=image_id, ms=ms)
        ):
            return Sighting.DELETED
        return Sighting.NOTHING

    async def pointer(self, image_id: str) -> Pointer | None:
        """Return where a pointer leads; None also where it cannot be read."""
        try:
            return await self._inventory.pointer(image_id)
        except DamagedMetadata:
            return None

    async def is_elsewhere(self, tenant: str, image_id: str, ms: int | None = None) -> bool:
        """Tell whether an image's pointer leads to something, and not to this tenant and time."""
        pointer = await self.pointer(image_id)
        if pointer is None or (pointer.tenant == tenant and ms in (None, pointer.ms)):
            return False
        return await self.look(pointer.tenant, image_id, pointer.ms) is not Sighting.NOTHING

    # Pointers ------------------------------------------------------------------------------

    async def _without_image(
        self, tenant: str, parts: AsyncGenerator[Part[T]]
    ) -> AsyncGenerator[tuple[Part[T], Sighting]]:
        page = list[Part[T]]()
        async with aclosing(parts):
            async for part in parts:
                page.append(part)
                if len(page) == PAGE:
                    for each in await self._quickly(tenant, page):
                        yield each
                    page = []
        for each in await self._quickly(tenant, page):
            yield each

    async def _quickly(
        self, tenant: str, parts: Sequence[Part[T]]
    ) -> list[tuple[Part[T], Sighting]]:
        found = list[tuple[Part[T], Sighting]]()
        for start in range(0, len(parts), AT_ONCE):
            some = parts[start : start + AT_ONCE]
            looked = await asyncio.gather(*(self._quick(tenant, part) for part in some))
            found += [each for each in looked if each[1] is not Sighting.IMAGE]
        return found

    async def _quick(self, tenant: str, part: Part[T]) -> tuple[Part[T], Sighting]:
        try:
            ms = _ms(part.uploaded_at)
            if ms is not None:
                sighting = await self.look(tenant, part.image_id, ms)
                if sighting is not Sighting.NOTHING:
                    return replace(part, ms=ms), sighting
            pointer = await self.pointer(part.image_id)
            if pointer is not None and pointer.tenant == tenant and pointer.ms != ms:
                sighting = await self.look(tenant, part.image_id, pointer.ms)
                return replace(part, ms=pointer.ms), sighting
        except Exception as error:
            # What cannot be looked at may be there.
            await reason_of(error, self._services, key=part.image_id)
            return part, Sighting.IMAGE
        return part, Sighting.NOTHING

    # Listings ------------------------------------------------------------------------------

    async def _listed(self, tenant: str, image_id: str) -> Sighting:
        await self._list(tenant)
        if self._index.said(_IMAGES, image_id, tenant=tenant):
            return Sighting.IMAGE
        if self._index.said(_DELETED, image_id, tenant=tenant):
            return Sighting.DELETED
        return Sighting.NOTHING

    async def _list(self, tenant: str) -> None:
        # Tombstones last: who deletes an image meanwhile writes them first.
        began = await self._index.fill(_IMAGES, tenant, _ids(self._inventory.images(tenant=tenant)))
        await self._index.fill(_DELETED, tenant, _ids(self._inventory.deleted(tenant=tenant)))
        self._listed_at.setdefault(tenant, began)


async def _ids(keys: AsyncGenerator[DatedKey]) -> AsyncGenerator[tuple[str, str]]:
    async with aclosing(keys):
        async for dated in keys:
            yield dated.image_id, ""


def _ms(uploaded_at: str | None) -> int | None:
    try:
        return None if uploaded_at is None else object_keys.epoch_ms(uploaded_at)
    except ValueError:
        return None
