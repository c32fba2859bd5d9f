"""Where all of a tenant's lies, of whatever kind."""

from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.storage.object_keys.images import (
    claim_folder,
    file_folders,
    metadata_folder,
    pointer_key,
    read_file_key,
    tombstone_folder,
)
from deeplens_streams.storage.object_keys.letters import letter_folder, letter_pointer_key
from deeplens_streams.storage.object_keys.shapes import InvalidObjectKey, read_dated_key
from deeplens_streams.storage.object_keys.trash import trash_folder


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
    InvalidObjectKey
        It does not.
    """
    inside = any(key.startswith(f"{folder}/") for folder in folders(tenant))
    if not inside or ".." in key.split("/"):
        raise InvalidObjectKey(f"{key!r} is no key of tenant {tenant!r}")
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
