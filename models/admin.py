"""What operators do."""

from models.records import WireRecord


class AdminAction(WireRecord, include_metadata=False):
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
    #: How it was answered; null when nobody lived to say so.
    status: int | None = None
