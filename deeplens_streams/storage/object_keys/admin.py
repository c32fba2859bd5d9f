"""Keys of what operators did, and of what is kept of each tenant's row."""

import re

from deeplens_streams.errors import BadRequest
from deeplens_streams.identifiers import check_tenant_id, is_tenant_id
from deeplens_streams.storage.object_keys.shapes import (
    MS_DIGITS,
    UUID,
    dated,
    letter_uuid,
    read_dated_key,
)
from models.tenants import SYSTEM

#: What operators did; no tenant can be called that.
ACTIONS = ".admin"

#: What is kept of each tenant's row; no tenant can be called that.
REGISTRY = ".registry"

_ACTION_CURSOR = re.compile(rf"(?P<ms>\d{{1,{MS_DIGITS}}})-(?P<uuid>{UUID})", re.ASCII)


def action_key(*, action_id: str, ms: int) -> str:
    """Return the key of what an operator did at `ms`."""
    return f"{ACTIONS}/{dated(ms, letter_uuid(action_id))}"


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


def registry_key(tenant: str) -> str:
    """Return the key of what is kept of a tenant's row, or of the system's."""
    return f"{REGISTRY}/{tenant if tenant == SYSTEM else check_tenant_id(tenant)}.json"


def read_registry_key(key: str) -> str | None:
    """Return whose row a key of `REGISTRY` is of, or None if it is no such key."""
    folder, _, name = key.rpartition("/")
    tenant = name.removesuffix(".json")
    is_one = tenant == SYSTEM or is_tenant_id(tenant)
    return tenant if folder == REGISTRY and tenant != name and is_one else None
