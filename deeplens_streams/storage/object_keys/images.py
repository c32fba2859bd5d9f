"""Keys of images: files, metadata objects, tombstones, pointers, and claims of their bytes."""

import re
from dataclasses import dataclass

from deeplens_streams.identifiers import IMAGE_ID_PREFIX, check_tenant_id
from deeplens_streams.storage.object_keys.shapes import (
    DAY,
    MS_DIGITS,
    UUID,
    InvalidObjectKey,
    dated,
    day_of,
    epoch_ms,
    image_uuid,
    read_dated_key,
)

#: The ending of an original's key, by the picture's format.
EXTENSIONS = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "BMP": "bmp",
    "TIFF": "tiff",
    "GIF": "gif",
    "AVIF": "avif",
    "HEIF": "heic",
    "HEIC": "heic",
    "JPEG2000": "jp2",
}

#: Where pointers lie; a tenant may be called that, too.
POINTERS = "index"

#: The image of what is of none that anybody could read.
NO_IMAGE = f"{IMAGE_ID_PREFIX}00000000-0000-0000-0000-000000000000"

_BELOW_TENANT = re.compile(
    rf"original/{DAY}/{UUID}\.(?:{'|'.join(sorted(set(EXTENSIONS.values())))})"
    rf"|thumbnail/{DAY}/{UUID}\.jpg"
    rf"|(?:metadata|deleted|failed)/{DAY}/\d{{2}}-\d{{2}}/\d{{{MS_DIGITS}}}-{UUID}\.json"
    rf"|checksum/[0-9a-f]{{2}}/[0-9a-f]{{64}}\.json",
    re.ASCII,
)
_FILE_NAME = re.compile(rf"(?P<uuid>{UUID})\.[a-z0-9]+", re.ASCII)
_FILE = re.compile(rf"[^/]+/(?:original|thumbnail)/(?P<day>{DAY})/{UUID}\.[a-z0-9]+", re.ASCII)
_POINTER = re.compile(rf"{POINTERS}/(?P<uuid>{UUID})", re.ASCII)
_CHECKSUM = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class DatedKey:
    """What the key of a metadata object or a tombstone says.

    Attributes
    ----------
    ms : `epoch_ms` of the upload.
    """

    key: str
    tenant: str
    image_id: str
    ms: int


def original_key(*, tenant: str, image_id: str, uploaded_at: str, format: str) -> str:
    extension = EXTENSIONS.get(format.upper())
    if extension is None:
        raise ValueError(f"{format!r} is none of {', '.join(EXTENSIONS)}")
    day = day_of(epoch_ms(uploaded_at))
    return f"{check_tenant_id(tenant)}/original/{day}/{image_uuid(image_id)}.{extension}"


def thumbnail_key(*, tenant: str, image_id: str, uploaded_at: str) -> str:
    day = day_of(epoch_ms(uploaded_at))
    return f"{check_tenant_id(tenant)}/thumbnail/{day}/{image_uuid(image_id)}.jpg"


def file_folders(tenant: str) -> tuple[str, str]:
    """Return where a tenant's originals and thumbnails lie, by day."""
    return (f"{check_tenant_id(tenant)}/original", f"{tenant}/thumbnail")


def read_file_key(key: str) -> str | None:
    """Return the image that an original or a thumbnail is of, or None if it is no such key."""
    match = _FILE_NAME.fullmatch(key.rpartition("/")[2])
    return f"{IMAGE_ID_PREFIX}{match['uuid']}" if match else None


def is_original_key(key: str) -> bool:
    """Tell whether an original lies at a key, whosever it is."""
    return key.split("/")[1:2] == ["original"] and read_file_key(key) is not None


def read_file_day(key: str) -> str | None:
    """Return the day of an original or a thumbnail, or None if it is no such key."""
    match = _FILE.fullmatch(key)
    return match["day"] if match else None


def metadata_key(*, tenant: str, image_id: str, ms: int) -> str:
    """Return the key of a metadata object; `ms` is `epoch_ms` of the upload."""
    return f"{metadata_folder(tenant)}/{dated(ms, image_uuid(image_id))}"


def metadata_folder(tenant: str) -> str:
    return f"{check_tenant_id(tenant)}/metadata"


def tombstone_key(*, tenant: str, image_id: str, ms: int) -> str:
    """Return the key of a deleted image's tombstone; `ms` is `epoch_ms` of its upload."""
    return f"{tombstone_folder(tenant)}/{dated(ms, image_uuid(image_id))}"


def tombstone_folder(tenant: str) -> str:
    return f"{check_tenant_id(tenant)}/deleted"


def read_mark(*, tenant: str, key: str) -> str | None:
    """Return the image of a metadata object or a tombstone, or None if it is no such key."""
    place = read_dated_key(key)
    marks = (f"{metadata_folder(tenant)}/", f"{tombstone_folder(tenant)}/")
    return f"{IMAGE_ID_PREFIX}{place[1]}" if place and key.startswith(marks) else None


def read_dated(*, tenant: str, key: str) -> DatedKey | None:
    """Return what the key of a tenant's metadata object or tombstone says, or None."""
    image_id, place = read_mark(tenant=tenant, key=key), read_dated_key(key)
    if image_id is None or place is None:
        return None
    return DatedKey(key, tenant, image_id, place[0])


def claim_folder(tenant: str) -> str:
    return f"{check_tenant_id(tenant)}/checksum"


def is_checksum(text: str) -> bool:
    """Tell whether a text is a SHA-256 as keys have it."""
    return _CHECKSUM.fullmatch(text) is not None


def claim_key(*, tenant: str, checksum: str) -> str:
    if not is_checksum(checksum):
        raise InvalidObjectKey(f"{checksum[:80]!r} is no SHA-256")
    return f"{check_tenant_id(tenant)}/checksum/{checksum[:2]}/{checksum}.json"


def pointer_key(image_id: str) -> str:
    return f"{POINTERS}/{image_uuid(image_id)}"


def read_pointer_key(key: str) -> str | None:
    """Return the image that a pointer is of, or None if it is no such key."""
    match = _POINTER.fullmatch(key)
    return f"{IMAGE_ID_PREFIX}{match['uuid']}" if match else None


def read_image_id(key: str) -> str:
    """Return the image that a key of any kind names, or an empty text."""
    found = re.search(rf"(?:/|-)({UUID})(?![0-9a-f])", key, re.ASCII)
    return f"{IMAGE_ID_PREFIX}{found[1]}" if found else ""


def check_key(*, tenant: str, key: str) -> str:
    """Return `key` if it is one that `tenant` can have.

    Raises
    ------
    InvalidObjectKey
        It is another tenant's, or of no shape that is made here.
    """
    owner, _, rest = key.partition("/")
    if owner != check_tenant_id(tenant) or not _BELOW_TENANT.fullmatch(rest):
        raise InvalidObjectKey(f"{key!r} is no key of tenant {tenant!r}")
    return key
