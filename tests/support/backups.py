"""A storage with something of everything, and what backups of it have to be."""

import hashlib
import itertools
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import AsyncMock

import orjson

from deeplens_streams.backup.copying import Counts, Finding
from deeplens_streams.backup.manifest import FOLDER, Manifest
from deeplens_streams.backup.restore import Way, restore
from deeplens_streams.backup.run import Wanted, back_up
from deeplens_streams.backup.verify import verify
from deeplens_streams.deletion import image as deletion
from deeplens_streams.pipeline.dead_letters import letter_id
from deeplens_streams.pipeline.requests import event_id
from deeplens_streams.services import Services
from deeplens_streams.storage import Blobs, ObjectImages
from deeplens_streams.storage.blobs.store import Listed, Write
from deeplens_streams.storage.dead_letters import DeadLetterStore
from deeplens_streams.storage.duplicate_claims import DuplicateClaims
from deeplens_streams.storage.tombstones import Tombstones
from models.events import utc_now
from models.images import StoredImage
from models.letters import DeadLetter
from models.status import Step
from tests.support.stored_images import NOON
from tests.support.stored_images import image as described

HERE = "file:///images"
THERE = "file:///backup"
TENANTS = ("acme-corp", "index", "globex")


class World:
    """A storage that people use."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs, self.images = blobs, ObjectImages(blobs)
        self.claims, self.letters = DuplicateClaims(blobs), DeadLetterStore(blobs)
        self.tombstones = Tombstones(blobs)
        self._minutes = itertools.count()

    async def upload(self, tenant: str = TENANTS[0], *, at: datetime | None = None) -> StoredImage:
        at = at or NOON + timedelta(minutes=next(self._minutes))
        image, data = described(self.images, tenant=tenant, at=at), os.urandom(3000)
        image.fileSize, image.checksumSha256 = len(data), hashlib.sha256(data).hexdigest()
        await self.images.put_image(image, data, claim=self.claims.pending(image))
        await self.claims.confirm(image)
        await self.images.put_thumbnail(tenant=tenant, key=image.thumbnailKey, data=b"small")
        return image

    async def begin_deletion(self, image: StoredImage) -> None:
        await deletion.begin(image, self._services())

    async def purge(self, image: StoredImage) -> None:
        tombstone = await self.tombstones.find(image.imageId)
        assert tombstone is not None
        await deletion.purge(tombstone, self._services())
        await self.tombstones.sent(image.imageId)

    async def delete(self, image: StoredImage) -> None:
        await self.begin_deletion(image)
        await self.purge(image)

    async def fail(self, image: StoredImage) -> str:
        """Leave a dead letter of an image."""
        letter = dead_letter(image)
        await self.letters.keep(letter)
        return letter.letterId

    async def write(self, key: str, data: bytes) -> None:
        await self.blobs.put(Write(key, data), action="test")

    def _services(self) -> Services:
        parts: dict[str, Any] = {each.name: AsyncMock() for each in fields(Services)} | {
            "storage": self.images,
            "claims": self.claims,
            "letters": self.letters,
            "tombstones": self.tombstones,
        }
        return Services(**parts)


def dead_letter(image: StoredImage) -> DeadLetter:
    step = Step.IMAGE_PROCESSING
    return DeadLetter(
        letterId=letter_id(image.tenantId, step, event_id(image, step, None, 1)),
        tenantId=image.tenantId,
        imageId=image.imageId,
        failedStep=step.value,
        errorCode="UNDECODABLE_IMAGE",
        errorMessage="It is no picture.",
        failedAt=utc_now(),
    )


async def populated(blobs: Blobs) -> tuple[World, list[StoredImage]]:
    """Return a storage with something of everything, and its images."""
    world = World(blobs)
    images = [await world.upload(tenant) for tenant in TENANTS for _ in range(2)]
    gone = await world.upload()
    await world.delete(gone)
    begun = await world.upload()
    await world.begin_deletion(begun)
    # Its purge has come this far.
    await world.images.delete_object(tenant=begun.tenantId, key=begun.originalKey)
    await world.fail(images[0])
    await world.write(".registry/tenants/acme-corp.json", b'{"tenantId":"acme-corp"}')
    await world.write(".admin/2025-03-09/12-00/1741521600000-" + str(uuid.uuid4()) + ".json", b"{}")
    await world.write(".nobody/failed/2025-03-09/12-00/1-x.json", b"{}")
    await world.write("purged/of-old.json", b"{}")
    await blobs.put(Write(".ping", b"."), action="test")
    return world, images


async def contents(blobs: Blobs, *, thumbnails: bool = False) -> dict[str, bytes]:
    """Return all that a backup is to hold of what is there."""
    found = {}
    async for key in blobs.walk("", action="test"):
        is_left_out = key == ".ping" or key.startswith((f"{FOLDER}/", ".restore/"))
        if not is_left_out and (thumbnails or "/thumbnail/" not in key):
            found[key] = await blobs.get(key, action="test") or b""
    return found


async def shown(blobs: Blobs) -> set[str]:
    """Return the images that a storage shows; each must have its bytes and its pointer."""
    images, ids = ObjectImages(blobs), set()
    for tenant in await images.tenants():
        async for image_id, image in images.survey(tenant=tenant):
            assert image is not None, image_id
            data = await images.get(tenant=tenant, key=image.originalKey)
            assert data is not None, f"{image_id} is shown and has no bytes"
            assert hashlib.sha256(data).hexdigest() == image.checksumSha256
            assert await images.find(image_id) is not None
            ids.add(image_id)
    return ids


async def saved(here: Blobs, there: Blobs, **wanted: Any) -> tuple[Counts, list[Finding]]:
    counts, found = Counts(), list[Finding]()
    options = Wanted(**{"source": HERE, **wanted})
    await back_up(here, there, options, found.append, counts)
    return counts, found


async def checked(target: Blobs) -> tuple[Manifest, list[Finding]]:
    found = list[Finding]()
    return await verify(target, found.append, Counts()), found


async def restored(there: Blobs, here: Blobs, **way: Any) -> tuple[Counts, list[Finding]]:
    counts, found = Counts(), list[Finding]()
    await restore(there, here, Way(**{"source": THERE, **way}), found.append, counts)
    return counts, found


class Killed(BaseException):
    """The process is no more."""


class Mortal:
    """A storage of a process that dies behind a write or a removal of a number."""

    def __init__(self, blobs: Blobs, at: int | None = None) -> None:
        self._blobs, self.at, self.writes = blobs, at, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def put(self, *writes: Write, action: str) -> None:
        for write in writes:
            await self._mortal(self._blobs.put(write, action=action))

    async def delete(self, key: str, *, action: str) -> None:
        await self._mortal(self._blobs.delete(key, action=action))

    async def _mortal(self, work: Awaitable[None]) -> None:
        if self.at is not None and self.writes >= self.at:
            work.close()  # type: ignore[attr-defined]
            raise Killed
        self.writes += 1
        await work
        if self.writes == self.at:
            raise Killed


class Watched:
    """A storage of which something is done in the middle of a reading."""

    def __init__(self, blobs: Blobs, at: int, do: Callable[[], Awaitable[object]]) -> None:
        self._blobs, self._at, self._do, self.reads = blobs, at, do, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def _read(self) -> None:
        self.reads += 1
        if self.reads == self._at:
            await self._do()

    async def get(self, key: str, *, action: str) -> bytes | None:
        await self._read()
        return await self._blobs.get(key, action=action)

    async def children(self, path: str, *, action: str) -> Any:
        await self._read()
        return await self._blobs.children(path, action=action)

    async def walk_listed(self, path: str, *, action: str) -> AsyncIterator[Listed]:
        async for each in self._blobs.walk_listed(path, action=action):
            await self._read()
            yield each


def parsed(raw: bytes | None) -> Any:
    assert raw is not None
    return orjson.loads(raw)
