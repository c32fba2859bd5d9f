"""The way back: from a backup into a storage, in the order in which uploads write.

An image's metadata object, with which it exists, is written behind its bytes and its pointer, and
what was deleted is not brought back: not what the backup has a tombstone of, and not what the
storage has one of.
"""

import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import orjson

from deeplens_streams.backup import manifest
from deeplens_streams.backup.catalogue import Catalogue, Entry
from deeplens_streams.backup.copying import POINTERS, Content, Counts, Reader, Tell
from deeplens_streams.backup.errors import BackupRefused
from deeplens_streams.backup.existing import Existing
from deeplens_streams.backup.images import damage
from deeplens_streams.backup.parallel import each
from deeplens_streams.backup.putting import Putting
from deeplens_streams.identifiers import is_tenant_id
from deeplens_streams.storage import Blobs, image_objects, object_keys
from deeplens_streams.storage.blobs.store import Write
from models.images import StoredImage

_LIST = "list for a restore"
#: Does what is to be done with an entry.
Work = Callable[[Entry], Awaitable[None]]
_MARK_KEY = ".restore/running.json"


@dataclass(frozen=True, slots=True)
class Way:
    """How a backup is to be brought back.

    Attributes
    ----------
    source : the URL by which the backup is known.
    into_existing : the storage may hold images: what is missing or broken there is written.
    unfinished : take what there is where no run of the backup has finished.
    """

    source: str
    into_existing: bool = False
    unfinished: bool = False


async def restore(source: Blobs, target: Blobs, way: Way, tell: Tell, counts: Counts) -> None:
    """Write all of a backup into a storage; tell of everything that is missing or damaged.

    Raises
    ------
    BackupRefused
        It is no backup that can be used, or the storage holds images.
    BackupDamaged
        The manifest cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="deeplens-restore-") as name:
        folder = Path(name)
        (folder / "there").mkdir()
        catalogue, there = Catalogue(folder), Catalogue(folder / "there")
        try:
            known = await manifest.load(source, catalogue)
            if not way.unfinished:
                manifest.check_finished(known)
            elif known.manifest is None and not await source.children("", action=_LIST):
                raise BackupRefused("There is nothing to restore.")
            if way.unfinished or known.damaged:
                await _add_unlisted(source, catalogue)
            existing = Existing(target, there, is_ours=not way.into_existing)
            await _take(target, way, existing)
            putting = Putting(
                reader=Reader(source, folder),
                target=target,
                target_reader=Reader(target, folder),
                existing=existing,
                tell=tell,
                counts=counts,
                trusts_json=known.unfinished is not None,
            )
            for key in known.damaged:
                putting.found(key, "damaged", "this part of the manifest cannot be read")
            await _Restore(catalogue, putting, existing).run()
            await target.delete(_MARK_KEY, action="end a restore")
            await target.prune(".restore", action="end a restore")
        finally:
            catalogue.close()
            there.close()


async def _add_unlisted(source: Blobs, catalogue: Catalogue) -> None:
    """Enter what the backup holds and no manifest names; nobody knows its checksum."""
    async with aclosing(source.walk_listed("", action=_LIST)) as found:
        async for listed in found:
            if not listed.key.startswith(f"{manifest.FOLDER}/"):
                catalogue.add([Entry(listed.key, listed.size, None)])


async def _take(target: Blobs, way: Way, existing: Existing) -> None:
    """Mark the storage as being restored.

    Raises
    ------
    BackupRefused
        It holds images.
    """
    mark = await target.get(_MARK_KEY, action=_LIST)
    is_resumed = False
    if mark is not None:
        try:
            is_resumed = orjson.loads(mark)["source"] == way.source
        except (ValueError, KeyError, TypeError):
            is_resumed = False
    if way.into_existing or is_resumed:
        await existing.read()
    elif await _holds_images(target):
        raise BackupRefused(
            "This storage holds images; restore into an empty one, or say --into-existing: then "
            "only what is missing or broken is written, and what was deleted stays so."
        )
    said = orjson.dumps({"source": way.source})
    await target.put(Write(_MARK_KEY, said), action="begin a restore")


async def _holds_images(target: Blobs) -> bool:
    for path in await target.children("", action=_LIST):
        if is_tenant_id(path.rstrip("/")):
            async with aclosing(target.walk(path.rstrip("/"), action=_LIST)) as keys:
                if await anext(keys, None) is not None:
                    return True
    return False


class _Restore:
    """Each entry is marked as seen when it was dealt with."""

    def __init__(self, catalogue: Catalogue, putting: Putting, existing: Existing) -> None:
        self._catalogue, self._putting, self._existing = catalogue, putting, existing

    async def run(self) -> None:
        # 1. what is no tenant's, what says that tenants were purged among it
        await self._existing.read_purges()
        await self._each(lambda key: not is_tenant_id(key.partition("/")[0]), self._plain)
        await self._each(lambda key: _kind(key) == "purged", self._plain)
        await self._existing.read_purges()
        # 2. tombstones, each behind its pointer
        await self._each(lambda key: _kind(key) == "deleted/", self._tombstone)
        # 3. images, each behind its bytes and its pointer
        await self._each(lambda key: _kind(key) == "metadata/", self._image)
        # 4. letters, each behind its pointer; then what is left
        await self._each(lambda key: _kind(key) == "failed/", self._letter)
        await self._each(lambda key: True, self._left)

    async def _each(self, wanted: Callable[[str], bool], work: Work) -> None:
        async def entries() -> AsyncGenerator[Entry]:
            for entry in self._catalogue.entries(seen=False):
                if wanted(entry.key):
                    yield entry

        async def one(entry: Entry) -> None:
            await work(entry)
            self._catalogue.mark(entry.key)

        await each(entries(), one)

    async def _plain(self, entry: Entry) -> None:
        if entry.key.startswith(f"{manifest.FOLDER}/"):
            return
        is_passing = entry.key.startswith((f"{object_keys.DELETING}/", f"{object_keys.TRASH}/"))
        if is_passing and not self._existing.is_ours:
            return  # by now it is done, or was thrown away
        await self._putting.put(entry)

    async def _tombstone(self, entry: Entry) -> None:
        place = object_keys.read_dated_key(entry.key)
        if self._covers(entry.key):
            return
        if place is not None:
            await self._pointer(place[1])
        await self._putting.put(entry)

    def _covers(self, key: str) -> bool:
        """Tell whether a tenant had a dated object when it was purged."""
        place = object_keys.read_dated_key(key)
        tenant = key.partition("/")[0]
        return place is not None and self._existing.purges.covers(tenant, place[0])

    async def _pointer(self, uuid: str) -> bool:
        entry = self._catalogue.get(object_keys.pointer_key(uuid))
        if entry is None or not await self._putting.put(entry):
            return False
        self._catalogue.mark(entry.key)
        return True

    async def _image(self, entry: Entry) -> None:
        async with self._putting.read(entry) as content:
            if content is None:
                return
            assert isinstance(content.data, bytes), "a metadata object is small"
            try:
                image = image_objects.read_own_metadata(entry.key, content.data)
            except image_objects.DamagedMetadata:
                if not self._covers(entry.key):
                    await self._putting.write(entry, content)
                return
            if self._was_deleted(image):
                self._catalogue.mark(image.originalKey)
                self._catalogue.mark(image.thumbnailKey)
                return
            # 1. bytes, 2. thumbnail, 3. pointer, 4. metadata object
            await self._original(image)
            thumbnail = self._catalogue.get(image.thumbnailKey)
            if thumbnail is not None:
                await self._putting.put(thumbnail)
                self._catalogue.mark(thumbnail.key)
            if not await self._pointer(object_keys.read_image_id(entry.key).removeprefix("img_")):
                await self._putting.make(*image_objects.pointer_of(image))
            await self._putting.write(entry, content)

    async def _original(self, image: StoredImage) -> None:
        entry = self._catalogue.get(image.originalKey)
        if entry is None:
            detail = "the backup has none: the source had none when it was made"
            self._putting.found(image.originalKey, "missing", detail)
            return
        await self._putting.put(entry, damage=lambda content: damage(image, content))
        self._catalogue.mark(entry.key)

    def _was_deleted(self, image: StoredImage) -> bool:
        ms = object_keys.epoch_ms(image.uploadedAt)
        tenant, image_id = image.tenantId, image.imageId
        grave = object_keys.tombstone_key(tenant=tenant, image_id=image_id, ms=ms)
        return (
            self._catalogue.get(grave) is not None
            or self._existing.purges.covers(tenant, ms)
            or self._existing.size(grave) is not None
        )

    async def _letter(self, entry: Entry) -> None:
        place = object_keys.read_dated_key(entry.key)
        pointer = self._catalogue.get(object_keys.letter_pointer_key(place[1])) if place else None
        if pointer is not None:
            self._catalogue.mark(pointer.key)
        async with self._putting.read(entry) as content:
            if content is None or (place and await self._is_of_the_dead(entry, place[0], content)):
                return
            if pointer is not None:
                await self._putting.put(pointer)
            await self._putting.write(entry, content)

    async def _is_of_the_dead(self, entry: Entry, ms: int, letter: Content) -> bool:
        """Tell whether a letter is of a tenant that was purged, or of an image that was deleted."""
        assert isinstance(letter.data, bytes), "a letter is small"
        said = orjson.loads(letter.data)  # which was looked at when it was read
        image_id = said.get("imageId") if isinstance(said, dict) else None
        return self._existing.purges.covers(entry.key.partition("/")[0], ms) or (
            isinstance(image_id, str) and await self._existing.has_tombstone(image_id)
        )

    async def _left(self, entry: Entry) -> None:
        image_id = object_keys.read_file_key(entry.key)
        if image_id is not None and await self._existing.has_tombstone(image_id):
            return
        tenant, _, rest = entry.key.partition("/")
        if rest.startswith("checksum/") and not self._existing.is_ours:
            return  # a claim is made again by who needs it
        if entry.key.startswith(POINTERS) and not rest.count("/") and not self._existing.is_ours:
            return  # of what was deleted since
        if not await self._is_purged(tenant, entry.key, image_id):
            await self._putting.put(entry)

    async def _is_purged(self, tenant: str, key: str, image_id: str | None) -> bool:
        pointer = self._catalogue.get(object_keys.pointer_key(image_id)) if image_id else None
        if pointer is None:
            return self._existing.purges.covers_file(tenant, key, None)
        async with self._putting.reader.read(pointer.key, pointer.size) as content:
            said = content.data if content is not None else None
            if not isinstance(said, bytes):  # gone, or too large for a pointer of ours
                said = None
            return self._existing.purges.covers_file(tenant, key, said)


def _kind(key: str) -> str:
    """Return which folder of a tenant's a key is in, or which that is no tenant's."""
    owner, *rest = key.split("/")
    return owner if len(rest) == 1 else f"{rest[0]}/"
