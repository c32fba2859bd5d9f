"""What a repair took away, as it is kept until somebody decides, or for so many days."""

from models.records import StoredRecord
from models.states import TrashKind

#: Said of these records; `models.states` has them for who does without records.
__all__ = ["TrashKind"]


class TrashManifest(StoredRecord, include_metadata=False):
    """What is kept, of whom, and why it was taken away."""

    #: A `TrashKind`.
    kind: str
    #: Where it lay, and where it is restored to; of a vector, its collection's model.
    key: str
    #: Empty for what is of nobody.
    tenantId: str
    #: Null where nobody could tell.
    imageId: str | None
    reason: str
    #: ISO-8601 UTC.
    at: str
    #: Of the audit that did it, or the request's.
    auditId: str
    #: Of the bytes as they are kept.
    size: int
    sha256: str
