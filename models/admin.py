"""What operators do."""

from typing import Any

from models.records import StoredRecord


class AdminAction(StoredRecord, include_metadata=False):
    """One request that changes how the system is run."""

    actionId: str
    #: When it came, ISO-8601 UTC.
    at: str
    #: What the key is called; ``operator`` for the one of the settings, ``none`` with keys off.
    keyId: str
    #: Method and route, such as ``POST /api/v1/admin/tenants``.
    action: str
    path: str
    requestId: str
    #: Whom or what it is about beyond the path: IDs, limits and scopes, never a key; null where
    #: the path says all.
    subject: dict[str, Any] | None = None
    #: How it was answered; null when nobody lived to say so.
    status: int | None = None
