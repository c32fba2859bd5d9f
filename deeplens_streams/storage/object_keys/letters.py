"""Keys of dead letters."""

from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.storage.object_keys.shapes import dated, letter_uuid

#: Whose dead letters are of messages that could not be read.
NOBODY = ".nobody"


def letter_key(*, tenant: str, letter_id: str, ms: int) -> str:
    """Return the key of a dead letter; `ms` is `epoch_ms` of when it was written."""
    return f"{letter_folder(tenant)}/{dated(ms, letter_uuid(letter_id))}"


def letter_folder(tenant: str) -> str:
    return f"{check_tenant_id(tenant) if tenant else NOBODY}/failed"


def letter_pointer_key(letter_id: str) -> str:
    return f"failed/{letter_uuid(letter_id)}"
