"""The two small objects of an image, its pointer and its metadata: keys and bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import orjson
import structlog

from deeplens_streams.errors import DeepLensError
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.storage import object_keys
from models.deletion import Tombstone
from models.images import StoredImage
from models.records import OtherMajorVersion

log = structlog.get_logger()


#: What Python makes of bytes that are not what they should be.
_NONSENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


class DamagedMetadata(DeepLensError):
    """The image's metadata object cannot be read; the operator's log names it."""

    code = "DAMAGED_METADATA"


class OtherVersion(DamagedMetadata):
    """The object is of another major version of this system; upgrade to that one."""


@contextmanager
def reading(what: str, key: str) -> Iterator[None]:
    """Raise `DamagedMetadata` for whatever goes wrong while the bytes of an object are read."""
    try:
        yield
    except DamagedMetadata:
        raise
    except (*_NONSENSE, DeepLensError) as error:
        log.error("an object is damaged", what=what, key=key, reason=str(error)[:500])
        is_other = isinstance(error, OtherMajorVersion)
        raise (OtherVersion if is_other else DamagedMetadata) from error


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where the pointer of an image leads.

    Attributes
    ----------
    ms : `object_keys.epoch_ms` of its upload.
    """

    tenant: str
    ms: int


def pointer_to(image_id: str, *, tenant: str, ms: int) -> tuple[str, bytes]:
    """Return key and bytes of an image's pointer."""
    said = {"tenantId": check_tenant_id(tenant), "uploadedAt": object_keys.time_of(ms)}
    return object_keys.pointer_key(image_id), orjson.dumps(said)


def pointer_of(image: StoredImage | Tombstone) -> tuple[str, bytes]:
    """Return key and bytes of the pointer."""
    object_keys.epoch_ms(image.uploadedAt)  # it is read back by that
    said = {"tenantId": check_tenant_id(image.tenantId), "uploadedAt": image.uploadedAt}
    return object_keys.pointer_key(image.imageId), orjson.dumps(said)


def metadata_of(image: StoredImage) -> tuple[str, bytes]:
    """Return key and bytes of the metadata object."""
    return metadata_key_of(image), orjson.dumps(image.to_wire())


def metadata_key_of(image: StoredImage | Tombstone) -> str:
    return object_keys.metadata_key(
        tenant=image.tenantId, image_id=image.imageId, ms=object_keys.epoch_ms(image.uploadedAt)
    )


def read_pointer(image_id: str, data: bytes) -> Pointer:
    """Return where the bytes of an image's pointer lead."""
    with reading("a pointer", image_id):
        said = orjson.loads(data)
        return Pointer(check_tenant_id(said["tenantId"]), object_keys.epoch_ms(said["uploadedAt"]))


def is_another_s(pointer: bytes, *, tenant: str) -> bool:
    """Tell whether a pointer, of an image or a letter, says that it is of another tenant."""
    try:
        return bool(orjson.loads(pointer)["tenantId"] != tenant)
    except (ValueError, KeyError, TypeError):
        return False


def read_own_metadata(key: str, data: bytes) -> StoredImage:
    """Return the image from the bytes of the metadata object at `key`, which is of no other."""
    with reading("a metadata object", key):
        image = StoredImage.from_wire(orjson.loads(data))
        for file in (image.originalKey, image.thumbnailKey):
            object_keys.check_key(tenant=image.tenantId, key=file)
            if object_keys.read_file_key(file) != image.imageId:
                raise ValueError(f"{file!r} is of another image")
        if metadata_key_of(image) != key:
            raise ValueError("it is of another image")
        return image
