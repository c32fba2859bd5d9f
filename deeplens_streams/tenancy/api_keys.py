"""API keys: how they are made, shown, hashed and compared."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from deeplens_streams.config import Settings
from deeplens_streams.credentials import secret
from deeplens_streams.errors import BadRequest, ConfigurationError
from models.events import utc_now
from models.tenants import ApiKey, ChangeKind, Scope, Tenant, TenantChangeData

if TYPE_CHECKING:
    from deeplens_streams.tenancy.registry import Registry

#: ``dlk_`` marks a DeepLens key for whoever scans for leaked secrets.
_KEY = re.compile(r"(?P<id>dlk_[a-z0-9]{12})_[A-Za-z0-9_-]{43}", re.ASCII)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
#: Characters of the operator's key, which a person may have chosen.
LEAST_LENGTH = 32
#: What a tenant's keys may be used for.
TENANT_SCOPES: Final = tuple(scope.value for scope in Scope if scope is not Scope.ADMIN)
#: Keys of one tenant that work.
MAX_KEYS: Final = 50


def new_key() -> tuple[str, str]:
    """Return a new key, 256 random bits behind its ID, and the ID."""
    key_id = "dlk_" + "".join(secrets.choice(_ALPHABET) for _ in range(12))
    return f"{key_id}_{secrets.token_urlsafe(32)}", key_id


def key_id(key: str) -> str | None:
    """Return the ID that a key begins with, or None if it has not the form of one."""
    match = _KEY.fullmatch(key)
    return match["id"] if match else None


def digest(key: str) -> str:
    """Return what is kept of a key; it cannot be turned back."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def is_same(key: str, kept: str) -> bool:
    """Tell whether `key` is the one that `kept` is of, in a time that says nothing of it."""
    return hmac.compare_digest(digest(key), kept)


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """The key by which the system is run: its hash, and what workers show one another."""

    sha256: str
    internal: str


def operator_key(settings: Settings) -> OperatorKey | None:
    """Return what the settings say, or None where no keys are asked for.

    Raises
    ------
    ConfigurationError
        The key is too short, or there is none and strangers could reach the port.
    """
    key = secret(settings, "admin_key")
    if key is None:
        if not settings.is_loopback and not settings.insecure:
            raise ConfigurationError(
                f"DEEPLENS_WEB_HOST {settings.web_host} can be reached by others: set "
                "DEEPLENS_ADMIN_KEY, so that requests need a key, or DEEPLENS_INSECURE=true if "
                "everybody may do everything."
            )
        return None
    if len(key) < LEAST_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            f"DEEPLENS_ADMIN_KEY is {LEAST_LENGTH} characters or more of ASCII without blanks; "
            "make one with: openssl rand -hex 32"
        )
    internal = hmac.new(key.encode(), b"deeplens internal", hashlib.sha256).hexdigest()
    return OperatorKey(digest(key), internal)


async def issue(
    registry: "Registry",
    owner: str,
    *,
    name: str,
    scopes: list[str],
    expires_at: str | None = None,
) -> tuple[str, ApiKey]:
    """Make a key for a tenant and return it with what is kept of it."""
    row = registry.find(owner)
    if row is not None and len(living(row)) >= MAX_KEYS:
        raise BadRequest(f"There are {MAX_KEYS} keys already; revoke one first.")
    key, key_id = new_key()
    kept = ApiKey(
        keyId=key_id,
        sha256=digest(key),
        scopes=scopes,
        createdAt=utc_now(),
        name=name,
        expiresAt=expires_at,
    )
    await registry.change(owner, TenantChangeData(kind=ChangeKind.ADD_KEY.value, key=kept))
    return key, kept


def living(row: Tenant) -> list[ApiKey]:
    """Return a tenant's keys that work."""
    now = utc_now()
    return [key for key in row.keys if key.ended_at(now) is None]
