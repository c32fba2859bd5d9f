"""What an audit looks at of each image's claim: its bytes, uploaded again, are a duplicate."""

from deeplens_streams.audit.context import AuditContext
from deeplens_streams.audit.report import Finding
from deeplens_streams.storage import object_keys
from models.audit import Fault
from models.images import StoredImage
from models.status import Ending, ImageRow, ImageState
from models.trash import TrashKind


async def claim_fault(
    image: StoredImage, row: ImageRow | None, context: AuditContext
) -> Finding | None:
    """Return what is wrong with the claim of an image's bytes, whosever it is.

    Who uploads the bytes of an image that failed gets another one, claim or not; who asked for no
    look at duplicates counts on none.
    """
    options, checksum = image.processingOptions, image.checksumSha256
    if options.skipDuplicateCheck or not object_keys.is_checksum(checksum):
        return None
    if row is not None and (
        row.status == ImageState.FAILED
        or (row.status == ImageState.DELETED and row.ending != Ending.DROPPED)
    ):
        return None
    claim = await context.services.claims.find(tenant=image.tenantId, checksum=checksum)
    if claim is not None and claim.image_id:
        return None

    async def repair() -> None:
        await claim_again(image, context)

    what = "no claim names its bytes" if claim is None else "the claim of its bytes is damaged"
    detail = f"{what}: uploaded again, they would be another image"
    return Finding(image.imageId, Fault.CLAIM_MISSING, detail, repair)


async def claim_again(image: StoredImage, context: AuditContext) -> None:
    """Claim an image's bytes for it, unless another has them by now."""
    services = context.services
    tenant, checksum = image.tenantId, image.checksumSha256
    claim = await services.claims.find(tenant=tenant, checksum=checksum)
    if claim is not None and not claim.image_id:
        # 1. what is replaced
        await services.trash.copy(
            object_keys.claim_key(tenant=tenant, checksum=checksum),
            kind=TrashKind.CLAIM,
            tenant=tenant,
            image_id=image.imageId,
            why=context.why("it could not be read, and was made again"),
        )
    # 2. the claim
    await services.claims.confirm(image)
    ms = object_keys.epoch_ms(image.uploadedAt)
    key = object_keys.tombstone_key(tenant=tenant, image_id=image.imageId, ms=ms)
    if await services.inventory.has(key):  # somebody deleted it meanwhile
        await services.claims.release(tenant=tenant, checksum=checksum, image_id=image.imageId)
