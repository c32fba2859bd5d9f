"""Making a metadata object anew: from the original, and what row and vector tell of it."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.duplicate_claims import claim_again
from deeplens_streams.audit.lost_original import WAY_OUT, Lost, LostOriginals, Original
from deeplens_streams.audit.report import NotRepaired
from deeplens_streams.audit.reprocess import process_again, revive
from deeplens_streams.deletion.lost import models_of
from deeplens_streams.identifiers import bare_uuid
from deeplens_streams.storage import image_objects, object_keys
from deeplens_streams.storage.blobs.store import AlreadyThere
from deeplens_streams.vectors import has_thumbnail
from models.events import ProcessingOptions, new_event_id
from models.images import StoredImage
from models.status import FINAL_STATES, ImageRow, ImageState, Step, StepStatus
from models.trash import TrashKind

_HAVE_VECTORS = frozenset({ImageState.COMPLETED, ImageState.PARTIAL})


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A metadata object that was made anew.

    Attributes
    ----------
    doubt : what nobody can tell of its original, a sentence's end; None where it is whole.
    """

    image: StoredImage
    doubt: str | None


class ThereByNow(NotRepaired):
    """Somebody has brought a metadata object back meanwhile."""


class Rebuilding:
    """Makes metadata objects anew, with the pointers and claims that belong to them."""

    def __init__(self, context: AuditContext) -> None:
        self._context, self._services = context, context.services
        self._originals = LostOriginals(context)

    async def repair(self, lost: Lost) -> Rebuilt:
        """Make an image's metadata object anew, and have the image processed where it is not.

        Raises
        ------
        NotRepaired
            What there is does not suffice.
        """
        services = self._services
        await services.storage.ping()  # storage that does not work looks as if it had nothing
        if await self._context.sightings.is_elsewhere(lost.tenant, lost.image_id):
            raise NotRepaired(f"there is another image of this ID; {WAY_OUT}")
        payload = await self._payload(lost)
        original = await self._originals.read(lost, payload)
        image = self._image(lost, original, payload or {})
        await self._write(lost, image)
        row = lost.row
        if row is not None and row.status == ImageState.DELETED:
            await revive(image, row, self._context.publish)
        elif row is None or row.status not in FINAL_STATES:
            await process_again(image, row, self._context.publish)
        return Rebuilt(image, original.doubt)

    async def refresh(self, image: StoredImage) -> None:
        """Have an image's metadata object say what is told of its picture now.

        Raises
        ------
        NotRepaired
            Its original would not be taken any more, or it was deleted meanwhile.
        """
        header = await self._originals.header(image)
        facts = header.facts(image.metadata.originalFileName or image.fileName)
        image.metadata = facts.carrying(image.metadata)
        await self._services.inventory.put_image(image, replace=True)
        await self._stays(image)

    async def _payload(self, lost: Lost) -> dict[str, Any] | None:
        """Return what the image's vector says of it, or None if it has none."""
        vectors, row = self._services.vectors, lost.row
        if vectors is None:
            if row is None or row.status in _HAVE_VECTORS:
                raise NotRepaired(
                    "its vector may tell its file name and tags, and this worker does not see it; "
                    f"repair it through the worker with the index role, or {WAY_OUT}"
                )
            return None
        for model in await models_of(self._services, tenant=lost.tenant, row=row):
            point = await vectors.get_point(tenant=lost.tenant, model=model, image_id=lost.image_id)
            if point is not None:
                return point.payload
        return None

    # The metadata object -------------------------------------------------------------------

    def _image(self, lost: Lost, original: Original, payload: dict[str, Any]) -> StoredImage:
        uploaded_at, row, header = object_keys.time_of(original.ms), lost.row, original.header
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
            thumbnailKey=object_keys.thumbnail_key(
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
        ms = object_keys.epoch_ms(image.uploadedAt)
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
        try:
            await services.inventory.put_image(image, replace=lost.damaged_key is not None)
        except AlreadyThere:  # somebody brought it back
            raise ThereByNow("it is there by now; audit again") from None
        await self._stays(image)
        # 4. claim
        await claim_again(image, self._context)

    async def _stays(self, image: StoredImage) -> None:
        """Take a metadata object back that was written while its image was deleted.

        Raises
        ------
        NotRepaired
            It was.
        """
        services, image_id = self._services, image.imageId
        ms = object_keys.epoch_ms(image.uploadedAt)
        tombstone = object_keys.tombstone_key(tenant=image.tenantId, image_id=image_id, ms=ms)
        if await services.inventory.has(tombstone):
            await services.storage.remove_metadata(image)
            raise NotRepaired("it was deleted meanwhile")
        if await self._went_with_tenant(image):
            await services.storage.delete_metadata(tenant=image.tenantId, image_id=image_id)
            raise NotRepaired("its tenant was deleted meanwhile")

    async def _went_with_tenant(self, image: StoredImage) -> bool:
        with suppress(image_objects.DamagedMetadata):
            purge = await self._services.tombstones.find_purge(tenant=image.tenantId)
            return purge is not None and image.uploadedAt <= purge.requestedAt
        return False

    async def is_seen(self, lost: Lost) -> bool:
        """Tell whether another metadata object of the image is there, and can be read."""
        with suppress(image_objects.DamagedMetadata):
            found = await self._services.storage.find(lost.image_id)
            return found is not None and image_objects.metadata_key_of(found) != lost.damaged_key
        return False


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _wants_thumbnail(row: ImageRow | None, payload: dict[str, Any]) -> bool:
    if row is not None:
        for step in row.steps:
            if step.step == Step.THUMBNAIL_GENERATION:
                return step.status != StepStatus.SKIPPED
    return has_thumbnail(payload)
