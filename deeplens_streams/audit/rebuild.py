"""Making a metadata object anew: from the original, and what row and vector tell of it."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.duplicate_claims import claim_again
from deeplens_streams.audit.report import NotRepaired
from deeplens_streams.audit.reprocess import process_again, revive
from deeplens_streams.deletion.lost import find_original, models_of
from deeplens_streams.errors import DeepLensError
from deeplens_streams.features.pictures import PictureHeader, inspect
from deeplens_streams.identifiers import bare_uuid
from deeplens_streams.storage import layout, objects
from deeplens_streams.storage.budget import MIB
from models.events import ProcessingOptions, new_event_id
from models.images import StoredImage
from models.status import FINAL_STATES, ImageRow, ImageState, Step, StepStatus
from models.trash import TrashKind

#: Bytes of an original that are held in memory while it is looked at; more lie on the disk.
_IN_MEMORY = 4 * MIB
_WAY_OUT = "bring its metadata object back from a backup, or delete the image"
_HAVE_VECTORS = frozenset({ImageState.COMPLETED, ImageState.PARTIAL})


@dataclass(frozen=True, slots=True)
class Lost:
    """An image without a metadata object that can be read.

    Attributes
    ----------
    damaged_key : where the one lies that cannot be read.
    times : when it may have been uploaded, ISO-8601, the surest first; whatever parts of it say.
    original_key : where its original lies, if that is known.
    """

    tenant: str
    image_id: str
    row: ImageRow | None
    times: tuple[str, ...] = ()
    damaged_key: str | None = None
    original_key: str | None = None


@dataclass(frozen=True, slots=True)
class _Original:
    """An original as it was read; `claimed` tells whether a claim of these bytes was ever made."""

    key: str
    ms: int
    size: int
    checksum: str
    header: PictureHeader
    claimed: bool


class Rebuilding:
    """Makes metadata objects anew, with the pointers and claims that belong to them."""

    def __init__(self, context: AuditContext) -> None:
        self._context, self._services = context, context.services

    async def repair(self, lost: Lost) -> StoredImage:
        """Make an image's metadata object anew, and have the image processed where it is not.

        Raises
        ------
        NotRepaired
            What there is does not suffice.
        """
        services = self._services
        await services.storage.ping()  # storage that does not work looks as if it had nothing
        if await self._context.sightings.is_elsewhere(lost.tenant, lost.image_id):
            raise NotRepaired(f"there is another image of this ID; {_WAY_OUT}")
        payload = await self._payload(lost)
        original = await self._original(lost, payload)
        image = self._image(lost, original, payload or {})
        await self._write(lost, image)
        row = lost.row
        if row is not None and row.status == ImageState.DELETED:
            await revive(image, row, self._context.publish)
        elif row is None or row.status not in FINAL_STATES:
            await process_again(image, row, self._context.publish)
        return image

    async def _payload(self, lost: Lost) -> dict[str, Any] | None:
        """Return what the image's vector says of it, or None if it has none."""
        vectors, row = self._services.vectors, lost.row
        if vectors is None:
            if row is None or row.status in _HAVE_VECTORS:
                raise NotRepaired(
                    "its vector may tell its file name and tags, and this worker does not see it; "
                    f"repair it through the worker with the index role, or {_WAY_OUT}"
                )
            return None
        for model in await models_of(self._services, tenant=lost.tenant, row=row):
            point = await vectors.get_point(tenant=lost.tenant, model=model, image_id=lost.image_id)
            if point is not None:
                return point.payload
        return None

    # The original --------------------------------------------------------------------------

    async def _original(self, lost: Lost, payload: dict[str, Any] | None) -> _Original:
        key, ms = await self._place(lost, payload)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            size, checksum = await self._read(lost.tenant, key, cast(BinaryIO, file))
            header = await self._header(cast(BinaryIO, file))
        claim = await self._services.claims.find(tenant=lost.tenant, checksum=checksum)
        if claim is not None and claim.image_id == lost.image_id and lost.damaged_key is None:
            # More than a file's day tells.
            with suppress(ValueError):
                claimed_ms = layout.epoch_ms(claim.uploaded_at)
                ms = claimed_ms if layout.day_of(claimed_ms) == layout.day_of(ms) else ms
        stored = lost.row.fileSize if lost.row is not None else None
        if claim is None and stored is not None and stored != size:
            raise NotRepaired(f"its original is damaged, too: {size} of {stored} bytes; {_WAY_OUT}")
        return _Original(key, ms, size, checksum, header, claimed=claim is not None)

    async def _place(self, lost: Lost, payload: dict[str, Any] | None) -> tuple[str, int]:
        """Return where the original lies, and when it was uploaded."""
        async with aclosing(self._moments(lost, payload)) as moments:
            async for ms in moments:
                key = lost.original_key or await find_original(
                    self._services, tenant=lost.tenant, image_id=lost.image_id, ms=ms
                )
                if key is not None and layout.read_file_day(key) == layout.day_of(ms):
                    return key, ms
        if lost.original_key is not None:
            return lost.original_key, await self._written_ms(lost.original_key)
        raise NotRepaired(f"its original is not there, either; {_WAY_OUT}")

    async def _moments(self, lost: Lost, payload: dict[str, Any] | None) -> AsyncGenerator[int]:
        """Yield when the image may have been uploaded, the surest first."""
        if lost.damaged_key is not None:
            place = layout.read_dated_key(lost.damaged_key)
            assert place is not None, "it was found by its key"
            yield place[0]
            return  # it must lie where the damaged one lies
        said = (payload or {}).get("uploadedAt")
        for text in (*lost.times, said):
            with suppress(ValueError):
                if isinstance(text, str):
                    yield layout.epoch_ms(text)
        pointer = await self._context.sightings.pointer(lost.image_id)
        if pointer is not None and pointer.tenant == lost.tenant:
            yield pointer.ms

    async def _written_ms(self, key: str) -> int:
        """Return when a file was written, kept within the day that its key names."""
        day = layout.read_file_day(key)
        first = layout.epoch_ms(f"{day}T00:00:00+00:00")
        written = await self._services.inventory.written_at(key)
        ms = first if written is None else int(written.timestamp() * 1000)
        return min(max(first, ms), first + 86_400_000 - 1)

    async def _read(self, tenant: str, key: str, file: BinaryIO) -> tuple[int, str]:
        size, digest = 0, hashlib.sha256()
        async for chunk in self._services.storage.stream(tenant=tenant, key=key):
            size += len(chunk)
            digest.update(chunk)
            file.write(chunk)
        file.seek(0)
        return size, digest.hexdigest()

    async def _header(self, file: BinaryIO) -> PictureHeader:
        max_pixels = self._services.settings.max_pixels
        try:
            return await asyncio.to_thread(inspect, file, max_pixels=max_pixels)
        except DeepLensError as error:
            raise NotRepaired(f"its original is damaged, too: {error.message} {_WAY_OUT}") from None

    # The metadata object -------------------------------------------------------------------

    def _image(self, lost: Lost, original: _Original, payload: dict[str, Any]) -> StoredImage:
        uploaded_at, row, header = layout.time_of(original.ms), lost.row, original.header
        suffix = original.key.rpartition(".")[2]
        file_name = _text(payload.get("fileName")) or f"{bare_uuid(lost.image_id)}.{suffix}"
        tags = payload.get("tags")
        known = tags.items() if isinstance(tags, dict) else ()
        return StoredImage(
            imageId=lost.image_id,
            tenantId=lost.tenant,
            correlationId=row.correlationId if row else new_event_id(),
            fileName=file_name,
            originalKey=original.key,
            thumbnailKey=layout.thumbnail_key(
                tenant=lost.tenant, image_id=lost.image_id, uploaded_at=uploaded_at
            ),
            fileSize=original.size,
            contentType=header.content_type,
            checksumSha256=original.checksum,
            uploadedAt=uploaded_at,
            metadata=header.facts(file_name),
            processingOptions=ProcessingOptions(
                models=row.models if row and row.models else [self._services.model.name],
                generateThumbnail=_wants_thumbnail(row, payload),
            ),
            tags={key: value for key, value in known if isinstance(value, str)},
            uploadedBy=_text(payload.get("uploadedBy")),
            lease=row.lease if row else None,
        )

    async def _write(self, lost: Lost, image: StoredImage) -> None:
        services = self._services
        ms = layout.epoch_ms(image.uploadedAt)
        if lost.damaged_key is not None:
            # 1. what is replaced
            await services.trash.copy(
                lost.damaged_key,
                kind=TrashKind.METADATA,
                tenant=lost.tenant,
                image_id=lost.image_id,
                why=self._context.why("it could not be read, and was made again"),
            )
        # 2. pointer, 3. metadata object
        await services.inventory.point(image.imageId, tenant=image.tenantId, ms=ms)
        await services.inventory.put_image(image)
        tombstone = layout.tombstone_key(tenant=lost.tenant, image_id=lost.image_id, ms=ms)
        if await services.inventory.has(tombstone):  # somebody deleted it meanwhile
            await services.storage.remove_metadata(image)
            raise NotRepaired("it was deleted meanwhile")
        if await self._went_with_tenant(image):
            await services.storage.delete_metadata(tenant=lost.tenant, image_id=lost.image_id)
            raise NotRepaired("its tenant was deleted meanwhile")
        # 4. claim
        await claim_again(image, self._context)

    async def _went_with_tenant(self, image: StoredImage) -> bool:
        with suppress(objects.DamagedMetadata):
            purge = await self._services.tombstones.find_purge(tenant=image.tenantId)
            return purge is not None and image.uploadedAt <= purge.requestedAt
        return False

    async def is_seen(self, lost: Lost) -> bool:
        """Tell whether another metadata object of the image is there, and can be read."""
        with suppress(objects.DamagedMetadata):
            found = await self._services.storage.find(lost.image_id)
            return found is not None and objects.metadata_key_of(found) != lost.damaged_key
        return False


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _wants_thumbnail(row: ImageRow | None, payload: dict[str, Any]) -> bool:
    if row is not None:
        for step in row.steps:
            if step.step == Step.THUMBNAIL_GENERATION:
                return step.status != StepStatus.SKIPPED
    return "thumbnailUrl" not in payload or payload["thumbnailUrl"] is not None
