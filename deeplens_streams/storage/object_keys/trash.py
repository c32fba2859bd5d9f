"""Keys of the trash: a manifest and the bytes, by tenant and image."""

import re

from deeplens_streams.identifiers import (
    IMAGE_ID_PREFIX,
    check_tenant_id,
    is_tenant_id,
)
from deeplens_streams.storage.object_keys.letters import NOBODY
from deeplens_streams.storage.object_keys.shapes import (
    UUID,
    InvalidObjectKey,
    dated_name,
    image_uuid,
    read_dated_key,
)

#: What repairs took away, by tenant and image; no tenant can be called that.
TRASH = ".trash"

_ID = re.compile(
    rf"(?P<tenant>[a-z0-9-]*)\.(?P<image>{UUID})\.(?P<ms>\d{{13}})-(?P<uuid>{UUID})", re.ASCII
)


def trash_folder(tenant: str) -> str:
    return f"{TRASH}/{check_tenant_id(tenant) if tenant else NOBODY}"


def image_folder(*, tenant: str, image_id: str) -> str:
    uuid = image_uuid(image_id)
    return f"{trash_folder(tenant)}/{uuid[:2]}/{uuid}"


def manifest_key(*, tenant: str, image_id: str, ms: int, entry: str) -> str:
    """Return the key of a manifest; `ms` is `epoch_ms` of when it was made."""
    return f"{image_folder(tenant=tenant, image_id=image_id)}/{dated_name(ms, entry)}"


def bytes_key(manifest: str) -> str:
    """Return the key of the bytes that belong to a manifest."""
    return f"{manifest.removesuffix('.json')}.bin"


def manifest_of(key: str) -> str:
    """Return the key of the manifest to which bytes belong; a manifest's own stays."""
    return f"{key.removesuffix('.bin')}.json" if key.endswith(".bin") else key


def thrown_ms(key: str) -> int | None:
    """Return when a manifest, or bytes, came into the trash; None if it is no such key."""
    place = read_dated_key(manifest_of(key))
    return None if place is None else place[0]


def entry_id(manifest: str) -> str:
    """Return the ID that stands for a manifest."""
    _, tenant, _, image, name = manifest.split("/")
    return f"{'' if tenant == NOBODY else tenant}.{image}.{name.removesuffix('.json')}"


def key_of(entry: str) -> str:
    """Return the key of the manifest that an ID stands for.

    Raises
    ------
    InvalidObjectKey
        It is no such ID.
    """
    match = _ID.fullmatch(entry)
    if match is None or not (match["tenant"] == "" or is_tenant_id(match["tenant"])):
        raise InvalidObjectKey(f"{entry[:80]!r} is no ID of anything in the trash")
    return manifest_key(
        tenant=match["tenant"],
        image_id=IMAGE_ID_PREFIX + match["image"],
        ms=int(match["ms"]),
        entry=match["uuid"],
    )
