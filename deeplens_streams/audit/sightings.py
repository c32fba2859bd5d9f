"""Whether an image is there or was deleted: by its metadata object or its tombstone alone.

A pointer is asked first because it is quick; what it does not lead to is looked for in listings
before anybody says that there is no such image.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Generic, TypeVar

from deeplens_streams.audit.guard import reason_of
from deeplens_streams.audit.report import PAGE
from deeplens_streams.services import Services
from deeplens_streams.storage import layout
from deeplens_streams.storage.objects import DamagedMetadata, Pointer

#: Looked for at once.
AT_ONCE = 16
#: What no pointer leads to is collected up to so many, for one listing.
COLLECTED = 500

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

    def __init__(self, services: Services) -> None:
        self._services, self._inventory = services, services.inventory

    async def unseen(
        self, tenant: str, parts: AsyncGenerator[Part[T]]
    ) -> AsyncGenerator[tuple[Part[T], Sighting]]:
        """Yield those parts of whom no metadata object of the tenant's is there."""
        collected = list[Part[T]]()
        async with aclosing(self._without_image(tenant, parts)) as left:
            async for part, sighting in left:
                if sighting is not Sighting.NOTHING:
                    yield part, sighting
                    continue
                collected.append(part)
                if len(collected) == COLLECTED:
                    for each in await self._listed(tenant, collected):
                        yield each
                    collected = []
        if collected:
            for each in await self._listed(tenant, collected):
                yield each

    async def seen(self, tenant: str, image_ids: Collection[str]) -> set[str]:
        """Return those of whom metadata object or tombstone is there, by listings alone."""
        found = set[str]()
        for folder in (layout.metadata_folder(tenant), layout.tombstone_folder(tenant)):
            found |= await self._inventory.named(folder, image_ids)
        return found

    async def look(self, tenant: str, image_id: str, ms: int) -> Sighting:
        """Tell what there is of an image that was uploaded then."""
        # In this order: who deletes an image writes the tombstone first.
        if await self._inventory.has(layout.metadata_key(tenant=tenant, image_id=image_id, ms=ms)):
            return Sighting.IMAGE
        if await self._inventory.has(layout.tombstone_key(tenant=tenant, image_id=image_id, ms=ms)):
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

    async def _listed(
        self, tenant: str, parts: Sequence[Part[T]]
    ) -> list[tuple[Part[T], Sighting]]:
        days = defaultdict[str | None, list[Part[T]]](list)
        for part in parts:
            days[part.day].append(part)
        found = list[tuple[Part[T], Sighting]]()
        for day, some in days.items():
            ids = {part.image_id for part in some}
            below = f"/{day}" if day is not None else ""
            # Tombstones last: who deletes an image meanwhile writes them first.
            images = await self._inventory.named(layout.metadata_folder(tenant) + below, ids)
            deleted = await self._inventory.named(layout.tombstone_folder(tenant) + below, ids)
            found += [
                (part, Sighting.DELETED if part.image_id in deleted else Sighting.NOTHING)
                for part in some
                if part.image_id not in images
            ]
        return found


def _ms(uploaded_at: str | None) -> int | None:
    try:
        return None if uploaded_at is None else layout.epoch_ms(uploaded_at)
    except ValueError:
        return None
