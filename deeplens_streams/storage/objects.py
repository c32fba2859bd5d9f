"""The two small objects of an image, its pointer and its metadata: keys and bytes."""

import orjson
import structlog

from deeplens_streams.errors import DeepLensError
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.storage import layout
from models.deletion import Tombstone
from models.images import StoredImage
from models.records import MalformedRecord

log = structlog.get_logger()


class DamagedMetadata(DeepLensError):
    """The image's metadata object cannot be read; the operator's log names it."""

    code = "DAMAGED_METADATA"


def pointer_of(image: StoredImage | Tombstone) -> tuple[str, bytes]:
    """Return key and bytes of the pointer."""
    layout.epoch_ms(image.uploadedAt)  # it is read back by that
    said = {"tenantId": check_tenant_id(image.tenantId), "uploadedAt": image.uploadedAt}
    return layout.pointer_key(image.imageId), orjson.dumps(said)


def metadata_of(image: StoredImage) -> tuple[str, bytes]:
    """Return key and bytes of the metadata object."""
    return metadata_key_of(image), orjson.dumps(image.to_wire())


def metadata_key_of(image: StoredImage | Tombstone) -> str:
    return layout.metadata_key(
        tenant=image.tenantId, image_id=image.imageId, ms=layout.epoch_ms(image.uploadedAt)
    )


def read_pointer(image_id: str, data: bytes) -> tuple[str, str]:
    """Return (tenant, metadata key) from the bytes of an image's pointer."""
    try:
        said = orjson.loads(data)
        tenant, ms = said["tenantId"], layout.epoch_ms(said["uploadedAt"])
        return tenant, layout.metadata_key(tenant=tenant, image_id=image_id, ms=ms)
    except (ValueError, KeyError, TypeError, DeepLensError) as error:
        log.error("a pointer is damaged", image_id=image_id, reason=str(error))
        raise DamagedMetadata from error


def is_another_s(pointer: bytes, *, tenant: str) -> bool:
    """Tell whether a pointer, of an image or a letter, says that it is of another tenant."""
    try:
        return bool(orjson.loads(pointer)["tenantId"] != tenant)
    except (ValueError, KeyError, TypeError):
        return False


def read_own_metadata(key: str, data: bytes) -> StoredImage:
    """Return the image as `read_metadata` does, if it is the one that the key is of."""
    image = read_metadata(key, data)
    reason = "it is of another image"
    try:
        layout.check_key(tenant=image.tenantId, key=image.originalKey)
        if metadata_key_of(image) == key:
            return image
    except (ValueError, DeepLensError) as error:
        reason = str(error)
    log.error("a metadata object is damaged", key=key, reason=reason)
    raise DamagedMetadata


def read_metadata(key: str, data: bytes) -> StoredImage:
    """Return the image from the bytes of the metadata object at `key`."""
    try:
        return StoredImage.from_wire(orjson.loads(data))
    except (orjson.JSONDecodeError, MalformedRecord) as error:
        log.error("a metadata object is damaged", key=key, reason=str(error))
        raise DamagedMetadata from error
