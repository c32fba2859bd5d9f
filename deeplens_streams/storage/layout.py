"""Where each object lies: the only place that builds or reads a key.

::

    {tenant}/original/{YYYY-MM-DD}/{uuid}.{ext}
    {tenant}/thumbnail/{YYYY-MM-DD}/{uuid}.jpg
    {tenant}/metadata/{YYYY-MM-DD}/{HH-MM}/{epoch ms, 13 digits}-{uuid}.json
    {tenant}/checksum/{first two digits}/{sha256}.json
    {tenant}/deleted/{YYYY-MM-DD}/{HH-MM}/{epoch ms}-{uuid}.json
    {tenant}/failed/{YYYY-MM-DD}/{HH-MM}/{epoch ms}-{letter's uuid}.json
    index/{uuid}
    failed/{letter's uuid}
    purged/{tenant}.json
    .admin/{YYYY-MM-DD}/{HH-MM}/{epoch ms}-{action's uuid}.json
    .deleting/{uuid}.json
    .purging/{tenant}/{epoch ms, 13 digits}/{uuid}
    .trash/{tenant}/{first two digits}/{uuid}/{epoch ms}-{entry's uuid}.json and .bin
    .registry/{tenant}.json

A tenant may be called ``index``, ``failed`` or ``purged``: below a tenant there are only folders
with names, below these only UUIDs or files, so they never meet. Dead letters of nobody, because
they could not be read, lie below ``.nobody``, which no tenant can be called. Days, minutes and
milliseconds have a fixed width, so the metadata keys of a tenant sort by time.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from deeplens_streams.errors import BadRequest
from deeplens_streams.identifiers import (
    IMAGE_ID_PREFIX,
    bare_uuid,
    check_image_id,
    check_tenant_id,
    is_tenant_id,
)
from models.events import wire_time
from models.tenants import SYSTEM

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
}

#: Written by the health check; no tenant can be called that.
PING_KEY = ".ping"

#: Whose dead letters are of messages that could not be read.
NOBODY = ".nobody"

#: Where pointers lie; a tenant may be called that, too.
POINTERS = "index"

#: What operators did; no tenant can be called that.
ACTIONS = ".admin"

#: Deletions that Kafka does not know of yet; no tenant can be called that.
DELETING = ".deleting"

#: Which images a purge that is under way has deleted; no tenant can be called that.
PURGING = ".purging"

#: What repairs took away, by tenant and image; no tenant can be called that.
TRASH = ".trash"

#: The image of what is of none that anybody could read.
NO_IMAGE = f"{IMAGE_ID_PREFIX}00000000-0000-0000-0000-000000000000"

#: What is kept of each tenant's row; no tenant can be called that.
REGISTRY = ".registry"

#: Where the proofs of deleted tenants lie; a tenant may be called that, too.
PURGES = "purged"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_DIGITS = 13
#: Milliseconds since 1970 have fewer than this: until 2286.
MS_LIMIT = 10**_MS_DIGITS
_DAY = r"\d{4}-\d{2}-\d{2}"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_BELOW_TENANT = re.compile(
    rf"original/{_DAY}/{_UUID}\.(?:{'|'.join(sorted(set(EXTENSIONS.values())))})"
    rf"|thumbnail/{_DAY}/{_UUID}\.jpg"
    rf"|(?:metadata|deleted|failed)/{_DAY}/\d{{2}}-\d{{2}}/\d{{{_MS_DIGITS}}}-{_UUID}\.json"
    rf"|checksum/[0-9a-f]{{2}}/[0-9a-f]{{64}}\.json",
    re.ASCII,
)
_FILE_NAME = re.compile(rf"(?P<uuid>{_UUID})\.[a-z]+", re.ASCII)
_FILE = re.compile(rf"[^/]+/(?:original|thumbnail)/(?P<day>{_DAY})/{_UUID}\.[a-z]+", re.ASCII)
_POINTER = re.compile(rf"{POINTERS}/(?P<uuid>{_UUID})", re.ASCII)
_CHECKSUM = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DELETION = re.compile(rf"{re.escape(DELETING)}/(?P<uuid>{_UUID})\.json", re.ASCII)
_DATED_NAME = re.compile(rf"(?P<ms>\d{{{_MS_DIGITS}}})-(?P<uuid>{_UUID})\.json", re.ASCII)
_ACTION_CURSOR = re.compile(rf"(?P<ms>\d{{1,{_MS_DIGITS}}})-(?P<uuid>{_UUID})", re.ASCII)


class InvalidKey(ValueError):
    """A key that this tenant cannot have; it was not built here."""


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


def epoch_ms(uploaded_at: str) -> int:
    """Return whole milliseconds since 1970 of an ISO-8601 time that names its offset.

    Raises
    ------
    ValueError
        The text is no such time, or lies before 1970 or after 2286.
    """
    moment = datetime.fromisoformat(uploaded_at)
    if moment.tzinfo is None:
        raise ValueError(f"{uploaded_at!r} names no offset from UTC")
    try:
        ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    except OverflowError:
        ms = -1
    if not 0 <= ms < MS_LIMIT:
        raise ValueError(f"{uploaded_at!r} cannot be when a picture was uploaded")
    return ms


def time_of(ms: int) -> str:
    """Return so many milliseconds since 1970 as times are written."""
    return wire_time(_moment(ms))


def original_key(*, tenant: str, image_id: str, uploaded_at: str, format: str) -> str:
    extension = EXTENSIONS.get(format.upper())
    if extension is None:
        raise ValueError(f"{format!r} is none of {', '.join(EXTENSIONS)}")
    day = _moment(epoch_ms(uploaded_at)).strftime("%Y-%m-%d")
    return f"{check_tenant_id(tenant)}/original/{day}/{_uuid(image_id)}.{extension}"


def thumbnail_key(*, tenant: str, image_id: str, uploaded_at: str) -> str:
    day = _moment(epoch_ms(uploaded_at)).strftime("%Y-%m-%d")
    return f"{check_tenant_id(tenant)}/thumbnail/{day}/{_uuid(image_id)}.jpg"


def metadata_key(*, tenant: str, image_id: str, ms: int) -> str:
    """Return the key of a metadata object; `ms` is `epoch_ms` of the upload."""
    return f"{metadata_folder(tenant)}/{_dated(ms, _uuid(image_id))}"


def metadata_folder(tenant: str) -> str:
    return f"{check_tenant_id(tenant)}/metadata"


def tombstone_key(*, tenant: str, image_id: str, ms: int) -> str:
    """Return the key of a deleted image's tombstone; `ms` is `epoch_ms` of its upload."""
    return f"{tombstone_folder(tenant)}/{_dated(ms, _uuid(image_id))}"


def tombstone_folder(tenant: str) -> str:
    return f"{check_tenant_id(tenant)}/deleted"


def deletion_key(image_id: str) -> str:
    """Return the key of what is known of a deletion until Kafka knows of it."""
    return f"{DELETING}/{_uuid(image_id)}.json"


def read_deletion_key(key: str) -> str | None:
    """Return the image that is being deleted, or None if it is no such key."""
    match = _DELETION.fullmatch(key)
    return f"{IMAGE_ID_PREFIX}{match['uuid']}" if match else None


def purge_key(tenant: str) -> str:
    """Return the key of what is known of a tenant's last purge: it outlives the tenant."""
    return f"{PURGES}/{check_tenant_id(tenant)}.json"


def read_purge_key(key: str) -> str | None:
    """Return the tenant whose purge a key of `PURGES` is of, or None if it is no such key."""
    folder, _, name = key.rpartition("/")
    tenant = name.removesuffix(".json")
    return tenant if folder == PURGES and tenant != name and is_tenant_id(tenant) else None


def registry_key(tenant: str) -> str:
    """Return the key of what is kept of a tenant's row, or of the system's."""
    return f"{REGISTRY}/{tenant if tenant == SYSTEM else check_tenant_id(tenant)}.json"


def read_registry_key(key: str) -> str | None:
    """Return whose row a key of `REGISTRY` is of, or None if it is no such key."""
    folder, _, name = key.rpartition("/")
    tenant = name.removesuffix(".json")
    is_one = tenant == SYSTEM or is_tenant_id(tenant)
    return tenant if folder == REGISTRY and tenant != name and is_one else None


def purging_folder(tenant: str) -> str:
    """Return where is kept which of a tenant's images were deleted by purges that are not over."""
    return f"{PURGING}/{check_tenant_id(tenant)}"


def purged_folder(tenant: str, *, ms: int) -> str:
    """Return where a purge keeps which images it has deleted; `ms` is when it was asked for."""
    return f"{purging_folder(tenant)}/{ms:0{_MS_DIGITS}d}"


def purged_key(tenant: str, *, ms: int, image_id: str) -> str:
    """Return the key that says that a purge has deleted an image."""
    return f"{purged_folder(tenant, ms=ms)}/{_uuid(image_id)}"


def action_key(*, action_id: str, ms: int) -> str:
    """Return the key of what an operator did at `ms`."""
    return f"{ACTIONS}/{_dated(ms, _letter(action_id))}"


def action_cursor(key: str) -> str:
    place = read_dated_key(key)
    assert place is not None, "keys of actions are built here"
    return f"{place[0]}-{place[1]}"


def action_key_of(cursor: str) -> str:
    """Return the key that a cursor stands for.

    Raises
    ------
    BadRequest
        It is none that was made here.
    """
    match = _ACTION_CURSOR.fullmatch(cursor)
    if match is None:
        raise BadRequest("The cursor is none that an earlier answer gave.")
    return action_key(action_id=match["uuid"], ms=int(match["ms"]))


def letter_key(*, tenant: str, letter_id: str, ms: int) -> str:
    """Return the key of a dead letter; `ms` is `epoch_ms` of when it was written."""
    return f"{letter_folder(tenant)}/{_dated(ms, _letter(letter_id))}"


def letter_folder(tenant: str) -> str:
    return f"{check_tenant_id(tenant) if tenant else NOBODY}/failed"


def letter_pointer_key(letter_id: str) -> str:
    return f"failed/{_letter(letter_id)}"


def trash_folder(tenant: str) -> str:
    return f"{TRASH}/{check_tenant_id(tenant) if tenant else NOBODY}"


def folders(tenant: str) -> tuple[str, ...]:
    """Return where all that is a tenant's lies; pointers are kept by an ID alone."""
    return (
        metadata_folder(tenant),
        letter_folder(check_tenant_id(tenant)),
        tombstone_folder(tenant),
        claim_folder(tenant),
        *file_folders(tenant),
        trash_folder(check_tenant_id(tenant)),
    )


def check_listed(*, tenant: str, key: str) -> str:
    """Return `key` if it lies in a folder of the tenant's, whatever its shape.

    Raises
    ------
    InvalidKey
        It does not.
    """
    inside = any(key.startswith(f"{folder}/") for folder in folders(tenant))
    if not inside or ".." in key.split("/"):
        raise InvalidKey(f"{key!r} is no key of tenant {tenant!r}")
    return key


def pointer_to(key: str) -> str | None:
    """Return the key of the pointer that leads to an object of a tenant's, if one may."""
    place = read_dated_key(key)
    if place is None:
        image_id = read_file_key(key)
        return None if image_id is None else pointer_key(image_id)
    if key.split("/")[1:2] == ["failed"]:
        return letter_pointer_key(place[1])
    return pointer_key(place[1])


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


def day_of(ms: int) -> str:
    """Return the day under which what was uploaded then lies."""
    return f"{_moment(ms):%Y-%m-%d}"


def claim_folder(tenant: str) -> str:
    return f"{check_tenant_id(tenant)}/checksum"


def claim_key(*, tenant: str, checksum: str) -> str:
    if not _CHECKSUM.fullmatch(checksum):
        raise InvalidKey(f"{checksum[:80]!r} is no SHA-256")
    return f"{check_tenant_id(tenant)}/checksum/{checksum[:2]}/{checksum}.json"


def pointer_key(image_id: str) -> str:
    return f"{POINTERS}/{_uuid(image_id)}"


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


def read_image_id(key: str) -> str:
    """Return the image that a key of any kind names, or an empty text."""
    found = re.search(rf"(?:/|-)({_UUID})(?![0-9a-f])", key, re.ASCII)
    return f"{IMAGE_ID_PREFIX}{found[1]}" if found else ""


def read_pointer_key(key: str) -> str | None:
    """Return the image that a pointer is of, or None if it is no such key."""
    match = _POINTER.fullmatch(key)
    return f"{IMAGE_ID_PREFIX}{match['uuid']}" if match else None


def read_dated_key(key: str) -> tuple[int, str] | None:
    """Return (epoch ms, UUID) that a dated key ends in, or None if it is no such key."""
    match = _DATED_NAME.fullmatch(key.rpartition("/")[2])
    return (int(match["ms"]), match["uuid"]) if match else None


def check_key(*, tenant: str, key: str) -> str:
    """Return `key` if it is one that `tenant` can have.

    Raises
    ------
    InvalidKey
        It is another tenant's, or of no shape that is made here.
    """
    owner, _, rest = key.partition("/")
    if owner != check_tenant_id(tenant) or not _BELOW_TENANT.fullmatch(rest):
        raise InvalidKey(f"{key!r} is no key of tenant {tenant!r}")
    return key


def dated_name(ms: int, uuid: str) -> str:
    """Return the name that `read_dated_key` reads."""
    return f"{ms:0{_MS_DIGITS}d}-{uuid}.json"


def _dated(ms: int, uuid: str) -> str:
    return f"{_moment(ms):%Y-%m-%d/%H-%M}/{dated_name(ms, uuid)}"


def _letter(letter_id: str) -> str:
    if not re.fullmatch(_UUID, letter_id, re.ASCII):
        raise InvalidKey(f"{letter_id[:80]!r} is no ID of a dead letter")
    return letter_id


def _moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _uuid(image_id: str) -> str:
    return bare_uuid(check_image_id(image_id))
