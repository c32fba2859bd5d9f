"""Tenants: what the registry knows of each, and the event that changes it."""

from datetime import datetime
from enum import StrEnum

from models.events import Event
from models.records import StoredRecord, WireRecord
from models.states import Scope, TenantState

#: Said of these records; `models.states` has them for who does without records.
__all__ = ["Scope", "TenantState"]

#: Whose row holds the keys of people who run the system; no tenant can be called that.
SYSTEM = ".system"


class Limits(WireRecord, include_metadata=False):
    """What a tenant may have and do; null is without a limit."""

    images: int | None = None
    bytes: int | None = None
    uploadsPerMinute: int | None = None
    searchesPerMinute: int | None = None
    #: Null is the system's own limit.
    collections: int | None = None

    def over(self, defaults: "Limits | None") -> "Limits":
        """Return these limits, with those of `defaults` where they say nothing."""
        values = defaults.known_fields() if defaults is not None else {}
        own = {name: value for name, value in self.known_fields().items() if value is not None}
        return Limits(**(values | own))


class Usage(WireRecord, include_metadata=False):
    """What a tenant has: accepted and not deleted.

    Less than nothing where it is wrong: what was never counted went. An audit says so.
    """

    images: int = 0
    bytes: int = 0

    @property
    def known(self) -> "Usage":
        """The same as far as it can be true."""
        return Usage(images=max(0, self.images), bytes=max(0, self.bytes))


class ApiKey(WireRecord, include_metadata=False):
    """A key as it is kept: what it is called, and the hash of the rest."""

    #: The part of the key that may be shown; its other part is the secret.
    keyId: str
    #: SHA-256 of the whole key, hexadecimal. Keys are 256 random bits, so no salt is needed.
    sha256: str
    scopes: list[str]
    #: ISO-8601 UTC.
    createdAt: str
    name: str = ""
    expiresAt: str | None = None
    revokedAt: str | None = None
    #: To the minute.
    lastUsedAt: str | None = None

    def ended_at(self, now: str) -> str | None:
        """Return since when it works no more, or None if it does at `now` (both ISO-8601 UTC)."""
        if self.revokedAt is not None:
            return self.revokedAt
        has_expired = self.expiresAt is not None and self.expiresAt <= now
        return self.expiresAt if has_expired else None


class Lease(WireRecord, include_metadata=False):
    """Room that one worker may fill for a tenant without asking again, until it gives it back."""

    images: int
    bytes: int
    #: ISO-8601 UTC.
    at: str


class Rates(WireRecord, include_metadata=False):
    """What was handed out of the per-minute limits in one minute."""

    #: Minutes since 1970.
    minute: int = 0
    uploads: int = 0
    searches: int = 0


class Tenant(StoredRecord, include_metadata=False):
    """The registry's row of one tenant, or of `SYSTEM`."""

    tenantId: str
    state: str
    createdAt: str
    updatedAt: str
    limits: Limits
    usage: Usage
    keys: list[ApiKey]
    #: Room that is handed out and not given back, by lease.
    leases: dict[str, Lease]
    rates: Rates
    #: By partition of the progress topic: the offset up to which it is counted in `usage`.
    counted: dict[str, int]
    #: IDs of the last changes, with what became of each: empty, or why it was refused.
    outcomes: dict[str, str]
    #: Whether everything that a new tenant needs was made.
    provisioned: bool = False
    #: Grows when room was refused while others had some to spare: they give it back.
    recalls: int = 0
    #: Room that pictures fill which `usage` does not count yet, by the day it was given back.
    filled: dict[str, Usage] | None = None
    #: End of the last purge of a tenant of this name; what is of before that is not of this one.
    purgedAt: str | None = None
    #: Grows with each change that is kept in storage, too (`TenantRecord`), and is no less than
    #: that change's time, in milliseconds since 1970: a worker of before this field writes a row
    #: again without it, and then the row's own time tells which is later.
    revision: int = 0
    #: Grows with each correction of `usage`: one that was worked out before another is refused.
    recounts: int = 0


class TenantRecord(StoredRecord, include_metadata=False):
    """What storage keeps of a tenant's row, for the day that Kafka is lost.

    Not what is counted or handed out: an audit counts anew what there is.
    """

    tenantId: str
    state: str
    createdAt: str
    updatedAt: str
    revision: int
    limits: Limits
    keys: list[ApiKey]
    provisioned: bool = False
    purgedAt: str | None = None

    @property
    def order(self) -> tuple[str, int]:
        """Of two records of one name, the later has the greater."""
        return self.createdAt, self.revision


def milliseconds(time: str) -> int:
    """Return an ISO-8601 time as milliseconds since 1970; 0 for what is none."""
    try:
        return int(datetime.fromisoformat(time).timestamp() * 1000)
    except ValueError:
        return 0


def record_of(row: Tenant) -> TenantRecord:
    """Return what storage is to keep of a row."""
    return TenantRecord(
        tenantId=row.tenantId,
        state=row.state,
        createdAt=row.createdAt,
        updatedAt=row.updatedAt,
        revision=row.revision or milliseconds(row.updatedAt),
        limits=row.limits,
        keys=row.keys,
        provisioned=row.provisioned,
        purgedAt=row.purgedAt,
    ).succeeding(row)


class Count(WireRecord, include_metadata=False):
    """One picture that came or went, as one offset of the progress topic tells it.

    One that went before it came counts nothing, and gives its room back.
    """

    offset: int
    images: int
    bytes: int
    #: Whose room it filled, and how much of it.
    lease: str | None = None
    leaseImages: int = 0
    leaseBytes: int = 0


class ChangeKind(StrEnum):
    """What a `TenantChange` does."""

    CREATE = "create"
    LIMIT = "limit"
    SUSPEND = "suspend"
    RESUME = "resume"
    PROVISIONED = "provisioned"
    DELETE = "delete"
    """It is being removed; a tenant that nobody made is refused meanwhile, too."""
    PURGED = "purged"
    """Nothing is left of it: the row goes, unless it is of a tenant that was made since."""
    ADD_KEY = "add_key"
    EXPIRE_KEY = "expire_key"
    """It ends at a time: at once, or after the overlap of a rotation."""
    KEYS_USED = "keys_used"
    COUNT = "count"
    """Pictures came or went."""
    LEASE = "lease"
    """A worker asks for room for pictures."""
    RETURN = "return"
    """It gives back what it did not fill; the rest of the lease is filled."""
    REFUSED = "refused"
    """A picture that had taken room was refused after all."""
    RATE = "rate"
    """It asks for uploads or searches of this minute."""
    RESTORE = "restore"
    """Its row is missing, or older than what storage keeps of it: that is to be read back."""
    RECOUNT = "recount"
    """Its usage is wrong by so much, or counts up to offsets of a topic that is no more."""


class TenantChangeData(WireRecord, include_metadata=False):
    """Only the fields of its kind are there."""

    kind: str
    limits: Limits | None = None
    key: ApiKey | None = None
    keyId: str | None = None
    #: ISO-8601 UTC.
    until: str | None = None
    keysUsed: dict[str, str] | None = None
    #: Partition of the progress topic that `counts` are of.
    partition: int | None = None
    counts: list[Count] | None = None
    #: Of a lease: what is asked for, or given back.
    lease: str | None = None
    images: int = 0
    bytes: int = 0
    #: Of a rate.
    uploads: int = 0
    searches: int = 0
    #: Of a recount, whose `images` and `bytes` are what is missing: the row that it was made of.
    createdAt: str | None = None
    recounts: int | None = None
    #: By partition of the progress topic: the offset in `Tenant.counted` that is to be forgotten.
    marks: dict[str, int] | None = None


class TenantEvent(Event, abstract=True, include_metadata=False):
    """Speaks of a tenant and of no image, and is keyed by it: what happens to it has one order."""

    @property
    def image_id(self) -> None:
        return None

    @property
    def key(self) -> str:
        return self.tenantId


class TenantChange(TenantEvent, include_metadata=False):
    """Something about a tenant is to change."""

    EVENT_TYPE = "tenant.change"

    data: TenantChangeData
    correlationId: str = ""


class TenantChanged(TenantEvent, include_metadata=False):
    """A tenant's row as it is now. On a compacted topic that every api process reads whole."""

    EVENT_TYPE = "tenant.changed"

    data: Tenant
    correlationId: str = ""
