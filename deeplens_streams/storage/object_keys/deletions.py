"""Keys of deletions: of one image, and of a whole tenant while it goes and when it is gone."""

import re

from deeplens_streams.identifiers import IMAGE_ID_PREFIX, check_tenant_id, is_tenant_id
from deeplens_streams.storage.object_keys.shapes import MS_DIGITS, UUID, image_uuid

#: Deletions that Kafka does not know of yet; no tenant can be called that.
DELETING = ".deleting"

#: Which images a purge that is under way has deleted; no tenant can be called that.
PURGING = ".purging"

#: Where the proofs of deleted tenants lie; a tenant may be called that, too.
PURGES = "purged"

_DELETION = re.compile(rf"{re.escape(DELETING)}/(?P<uuid>{UUID})\.json", re.ASCII)


def deletion_key(image_id: str) -> str:
    """Return the key of what is known of a deletion until Kafka knows of it."""
    return f"{DELETING}/{image_uuid(image_id)}.json"


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


def purging_folder(tenant: str) -> str:
    """Return where is kept which of a tenant's images were deleted by purges that are not over."""
    return f"{PURGING}/{check_tenant_id(tenant)}"


def purged_folder(tenant: str, *, ms: int) -> str:
    """Return where a purge keeps which images it has deleted; `ms` is when it was asked for."""
    return f"{purging_folder(tenant)}/{ms:0{MS_DIGITS}d}"


def purged_key(tenant: str, *, ms: int, image_id: str) -> str:
    """Return the key that says that a purge has deleted an image."""
    return f"{purged_folder(tenant, ms=ms)}/{image_uuid(image_id)}"
