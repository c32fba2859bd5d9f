"""The images' folder: every object that is JSON is read, of every file its size is looked at."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson

from deeplens_streams.backup.catalogue import Entry
from deeplens_streams.backup.copying import POINTERS, broken_json
from deeplens_streams.data_check.damage import REPAIR, RESTORE, Damage, Look
from deeplens_streams.storage import blobs_at, image_objects, object_keys
from deeplens_streams.storage.blobs.files import finished_name, unfinished
from deeplens_streams.storage.blobs.store import Blobs, Listed
from deeplens_streams.storage.tombstones import read_tombstone
from models.images import StoredImage

_ACTION = "look at an object"
#: Objects that are looked at together.
_AT_ONCE = 16
_NOT_OF_IMAGES = (".backup/", ".restore/")
_REMOVE = "remove this file: it is made again by who needs it"


async def check(look: Look) -> AsyncIterator[Damage]:
    """Yield each object that is damaged, and each image of which something is missing."""
    settings = look.settings
    if not settings.images_url.startswith("file:"):
        look.left_out.append("images: they are in no folder; deeplens audit looks at them")
        return
    if not settings.images_path.is_dir():
        return
    images = _Images(look, blobs_at(settings.images_url, settings), settings.images_path)
    async for damage in images.all():
        yield damage


class _Images:
    def __init__(self, look: Look, blobs: Blobs, folder: Path) -> None:
        self._look, self._blobs, self._folder = look, blobs, folder

    async def all(self) -> AsyncIterator[Damage]:
        batch: list[Listed] = []
        async for listed in self._blobs.walk_listed("", action=_ACTION):
            batch.append(listed)
            if len(batch) == _AT_ONCE:
                for found in await asyncio.gather(*map(self._one, batch)):
                    for damage in found:
                        yield damage
                batch = []
        for found in await asyncio.gather(*map(self._one, batch)):
            for damage in found:
                yield damage
        left = _batches(self._folder)
        while (paths := await asyncio.to_thread(next, left, None)) is not None:
            for path in paths:
                key = path.relative_to(self._folder).as_posix()
                meant = finished_name(key) or key
                detail = f"a process was killed while it wrote {meant}; it may be a picture"
                yield self._damage(key, "write_unfinished", detail, REPAIR)

    async def _one(self, listed: Listed) -> list[Damage]:
        key, self._look.looked = listed.key, self._look.looked + 1
        if key.startswith(_NOT_OF_IMAGES) or key == object_keys.PING_KEY:
            return []
        kind = key.split("/")[1] if key.count("/") > 1 else ""
        if object_keys.read_file_key(key) is not None and kind in ("original", "thumbnail"):
            if listed.size:
                return []
            mend = RESTORE if kind == "original" else REPAIR
            return [self._damage(key, f"{kind}_empty", "it has no bytes", mend)]
        is_pointer = key.count("/") == 1 and key.startswith(POINTERS)
        if not key.endswith(".json") and not is_pointer:
            return []
        data = await self._blobs.get(key, action=_ACTION) or b""
        if kind == "metadata":
            return await self._metadata(key, data)
        return self._small(Entry(key, listed.size, None), data, kind)

    def _small(self, entry: Entry, data: bytes, kind: str) -> list[Damage]:
        reason = broken_json(entry.key, data)
        if reason is None and kind == "deleted":
            try:
                read_tombstone(entry.key, data)
            except image_objects.DamagedMetadata:
                reason = "it is no tombstone of this image"
        image_id = object_keys.read_pointer_key(entry.key)
        if reason is None and image_id is not None:
            try:
                image_objects.read_pointer(image_id, data)
            except image_objects.DamagedMetadata:
                reason = "it leads nowhere"
        if reason is None:
            return []
        mend = REPAIR if image_id or kind == "checksum" else RESTORE
        name = "pointer" if image_id else _NAMES.get(kind, "object")
        return [self._damage(entry.key, f"{name}_damaged", reason, mend)]

    async def _metadata(self, key: str, data: bytes) -> list[Damage]:
        try:
            image = image_objects.read_own_metadata(key, data)
        except image_objects.DamagedMetadata:
            reason = broken_json(key, data) or "it is no metadata object of this image"
            return [self._damage(key, "metadata_damaged", reason, f"{REPAIR}; else {RESTORE}")]
        return [*await self._original(image), *await self._pointer(image)]

    async def _original(self, image: StoredImage) -> list[Damage]:
        size = await self._blobs.size(image.originalKey, action=_ACTION)
        if size is None:
            detail = "the image has no bytes"
            return [self._damage(image.originalKey, "original_missing", detail, RESTORE)]
        if size not in (0, image.fileSize):  # an empty one is found by itself
            detail = f"it has {size} bytes and should have {image.fileSize}"
            return [self._damage(image.originalKey, "original_damaged", detail, RESTORE)]
        return []

    async def _pointer(self, image: StoredImage) -> list[Damage]:
        key, meant = image_objects.pointer_of(image)
        said = await self._blobs.get(key, action=_ACTION)
        if said is None:
            detail = "the image cannot be found by its ID"
            return [self._damage(key, "pointer_missing", detail, REPAIR)]
        if broken_json(key, said) is None and orjson.loads(said) != orjson.loads(meant):
            return [self._damage(key, "pointer_damaged", "it is of another image", REPAIR)]
        return []

    def _damage(self, key: str, kind: str, detail: str, mend: str) -> Damage:
        path = self._look.name(self._folder / key)
        return Damage("images", path, kind, detail, mend, subject=object_keys.read_image_id(key))


#: What an object is called, by the folder of a tenant that it is in.
_NAMES = {"deleted": "tombstone", "failed": "letter", "checksum": "claim"}


def _batches(folder: Path) -> Iterator[list[Path]]:
    """Yield files that were never finished, some at a time."""
    batch: list[Path] = []
    for path, _ in unfinished(folder):
        batch.append(path)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
