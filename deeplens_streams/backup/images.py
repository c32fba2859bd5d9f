"""The images of a backup: bytes, pointer, metadata object, in this order, and their tombstones."""

from contextlib import aclosing

from deeplens_streams.backup.catalogue import Entry
from deeplens_streams.backup.copying import Content, Run
from deeplens_streams.backup.parallel import each
from deeplens_streams.errors import DeepLensError
from deeplens_streams.storage import image_objects, object_keys
from deeplens_streams.storage.blobs.store import Listed
from deeplens_streams.storage.images import ObjectImages
from deeplens_streams.storage.tombstones import Tombstones, read_tombstone
from models.images import StoredImage

_LIST = "list for a backup"


async def copy_tombstones(run: Run, tenant: str) -> None:
    """Copy what says that images were deleted, and remove these from the backup."""

    async def one(listed: Listed) -> None:
        place = object_keys.read_dated_key(listed.key)
        if run.is_copied(listed):
            if place is not None:
                run.catalogue.mark(object_keys.pointer_key(place[1]))
            return
        async with run.reader.read(listed.key, listed.size) as content:
            if content is None:
                return
            assert isinstance(content.data, bytes), "a tombstone is small"
            try:
                tombstone = read_tombstone(listed.key, content.data)
            except image_objects.DamagedMetadata:
                reason = "the tombstone cannot be read"
                await run.keep(listed.key, content, stamp=listed.stamp, fault=reason)
                return
            # 1. how it is found, 2. tombstone, 3. what it stands for goes; should that be cut off,
            # `reconcile` finds it
            await run.keep_bytes(*image_objects.pointer_of(tombstone))
            await run.keep(listed.key, content, stamp=listed.stamp)
        metadata = image_objects.metadata_key_of(tombstone)
        for key in (metadata, tombstone.thumbnailKey, tombstone.originalKey):
            await run.remove(key)

    folder = object_keys.tombstone_folder(tenant)
    await each(run.source.walk_listed(folder, action=_LIST), one)


async def copy_images(run: Run, tenant: str) -> None:
    """Copy every image that is not deleted."""

    async def one(listed: Listed) -> None:
        place = object_keys.read_dated_key(listed.key)
        if place is None:  # no object of ours
            await run.copy(listed)
            return
        ms, uuid = place
        grave = object_keys.tombstone_key(tenant=tenant, image_id=uuid, ms=ms)
        if run.catalogue.is_seen(grave):
            return
        is_pointed = run.catalogue.mark(object_keys.pointer_key(uuid))
        if is_pointed and run.is_copied(listed):
            return
        async with run.reader.read(listed.key, listed.size) as content:
            if content is not None:
                await _copy_image(run, listed, content)

    folder = object_keys.metadata_folder(tenant)
    await each(run.source.walk_listed(folder, action=_LIST), one)


async def _copy_image(run: Run, listed: Listed, content: Content) -> None:
    assert isinstance(content.data, bytes), "a metadata object is small"
    try:
        image = image_objects.read_own_metadata(listed.key, content.data)
    except image_objects.DamagedMetadata:
        reason = "the metadata object cannot be read"
        await run.keep(listed.key, content, stamp=listed.stamp, fault=reason)
        return
    # 1. bytes
    if not await _copy_original(run, listed.key, image):
        return
    # 2. pointer; one that is lost at the source is made anew
    await run.keep_bytes(*image_objects.pointer_of(image))
    # 3. metadata object: with it, the image is in the backup
    await run.keep(listed.key, content, stamp=listed.stamp)


async def _copy_original(run: Run, metadata: str, image: StoredImage) -> bool:
    """Copy an image's bytes; False if it was deleted meanwhile."""
    entry = run.catalogue.get(image.originalKey)
    if entry is not None and not entry.fault:
        return True  # whether it is the same still, the walk of all originals tells
    async with run.reader.read(image.originalKey, image.fileSize) as content:
        if content is not None:
            await run.keep(image.originalKey, content, fault=damage(image, content))
            return True
    if await run.source.size(metadata, action=_LIST) is None:
        return False
    if entry is None:
        run.found(image.originalKey, "original_missing", "the image has no bytes at the source")
    return True


def damage(image: StoredImage, content: Content) -> str | None:
    """Return what is wrong with an original, or None."""
    if content.size != image.fileSize:
        return f"it has {content.size} bytes and should have {image.fileSize}"
    if image.checksumSha256 and content.sha256 != image.checksumSha256:
        return "its bytes are others than were uploaded"
    return None


async def copy_files(run: Run, folder: str) -> None:
    """Copy originals or thumbnails that no image has brought, and look whether others changed."""
    source = ObjectImages(run.source)
    tombstones = Tombstones(run.source)

    async def one(listed: Listed) -> None:
        if run.is_copied(listed):
            return
        image_id = object_keys.read_file_key(listed.key)
        image = None
        try:
            if image_id is not None:
                image = await source.find(image_id)
                if image is None and await tombstones.find(image_id) is not None:
                    return  # it is being purged
        except DeepLensError as error:
            if not isinstance(error, image_objects.DamagedMetadata):
                raise
        async with run.reader.read(listed.key, listed.size) as content:
            if content is not None:
                fault = _fault(image, run.catalogue.get(listed.key), listed, content)
                await run.keep(listed.key, content, stamp=listed.stamp, fault=fault)

    async with aclosing(run.source.walk_listed(folder, action=_LIST)) as files:
        await each(files, one)


def _fault(
    image: StoredImage | None, entry: Entry | None, listed: Listed, content: Content
) -> str | None:
    if content.size == 0:
        return "it is empty"
    if image is not None and image.originalKey == listed.key:
        return damage(image, content)
    is_other = entry is not None and not entry.fault and entry.sha256 != content.sha256
    if is_other and object_keys.is_original_key(listed.key):
        return "its bytes are others than when it was copied"
    return None
