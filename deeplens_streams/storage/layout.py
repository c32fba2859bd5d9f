"""Where each object lies: the only place that builds or reads a key.

::

    {tenant}/original/{YYYY-MM-DD}/{uuid}.{ext}
    {tenant}/thumbnail/{YYYY-MM-DD}/{uuid}.jpg
    {tenant}/metadata/{YYYY-MM-DD}/{HH-MM}/{epoch ms, 13 digits}-{uuid}.json
    index/{uuid}

A tenant may be called ``index``: below a tenant there are only the three folders, below the
pointers' folder only UUIDs, so the two never meet. Days, minutes and milliseconds have a fixed
width, so the metadata keys of a tenant sort by time.
"""

import re
from datetime import UTC, datetime, timedelta

from deeplens_streams.identifiers import bare_uuid, check_image_id, check_tenant_id

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
"""The ending of an original's key, by the picture's format."""

PING_KEY = ".ping"
"""Written by the health check; no tenant can be called that."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_DIGITS = 13
_DAY = r"\d{4}-\d{2}-\d{2}"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_BELOW_TENANT = re.compile(
    rf"original/{_DAY}/{_UUID}\.(?:{'|'.join(sorted(set(EXTENSIONS.values())))})"
    rf"|thumbnail/{_DAY}/{_UUID}\.jpg"
    rf"|metadata/{_DAY}/\d{{2}}-\d{{2}}/\d{{{_MS_DIGITS}}}-{_UUID}\.json",
    re.ASCII,
)
_METADATA_NAME = re.compile(rf"(?P<ms>\d{{{_MS_DIGITS}}})-(?P<uuid>{_UUID})\.json", re.ASCII)


class InvalidKey(ValueError):
    """A key that this tenant cannot have; it was not built here."""


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
    ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    if not 0 <= ms < 10**_MS_DIGITS:
        raise ValueError(f"{uploaded_at!r} cannot be when a picture was uploaded")
    return ms


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
    minute = _moment(ms).strftime("%Y-%m-%d/%H-%M")
    return f"{metadata_folder(tenant)}/{minute}/{ms:0{_MS_DIGITS}d}-{_uuid(image_id)}.json"


def metadata_folder(tenant: str) -> str:
    return f"{check_tenant_id(tenant)}/metadata"


def pointer_key(image_id: str) -> str:
    return f"index/{_uuid(image_id)}"


def read_metadata_key(key: str) -> tuple[int, str] | None:
    """Return (epoch ms, UUID) that a metadata key ends in, or None if it is no such key."""
    match = _METADATA_NAME.fullmatch(key.rpartition("/")[2])
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


def _moment(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _uuid(image_id: str) -> str:
    return bare_uuid(check_image_id(image_id))
