"""The two names that clients choose or hold, checked in one place."""

import re
import uuid
from typing import Any, TypeGuard

from deeplens_streams.errors import InvalidImageId, InvalidTenantId

IMAGE_ID_PREFIX = "img_"

_TENANT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def is_tenant_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and _TENANT.fullmatch(value) is not None


def check_tenant_id(value: Any) -> str:
    """Return `value` if it is a tenant ID; it is never rewritten."""
    if not is_tenant_id(value):
        raise InvalidTenantId
    return value


def new_image_id() -> str:
    return f"{IMAGE_ID_PREFIX}{uuid.uuid4()}"


def check_image_id(value: Any) -> str:
    """Return the prefixed, lower-case form of an image ID given with or without ``img_``."""
    if isinstance(value, str):
        bare = value.removeprefix(IMAGE_ID_PREFIX).lower()
        if _UUID.fullmatch(bare):
            return IMAGE_ID_PREFIX + bare
    raise InvalidImageId


def bare_uuid(image_id: str) -> str:
    """Return the UUID of a checked image ID."""
    return image_id.removeprefix(IMAGE_ID_PREFIX)
