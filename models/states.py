"""States, steps and kinds by their names on the wire, without the records that hold them."""

from enum import StrEnum


class ImageState(StrEnum):
    """The picture as a whole; the contract's ``status``."""

    UPLOADED = "uploaded"
    """Bytes, metadata and event are stored; no stage has reported yet."""
    PROCESSING = "processing"
    """A stage has reported and some step is not at its end."""
    COMPLETED = "completed"
    """Every model's vector is stored."""
    PARTIAL = "partial"
    """At least one model's vector is stored and at least one failed."""
    FAILED = "failed"
    """No vector could be stored; the reason is in the row and in the dead letters."""
    DELETED = "deleted"
    """The client deleted it."""


#: States after which a generation changes no more.
FINAL_STATES = frozenset(
    {ImageState.COMPLETED, ImageState.PARTIAL, ImageState.FAILED, ImageState.DELETED}
)


class Step(StrEnum):
    """One step of a picture's way, in pipeline order."""

    IMAGE_PROCESSING = "image_processing"
    THUMBNAIL_GENERATION = "thumbnail_generation"
    FEATURE_EXTRACTION = "feature_extraction"
    VECTOR_INDEXING = "vector_indexing"


class StepStatus(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    """Of the contract; no stage reports it."""
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


class PurgeStep(StrEnum):
    """What is removed of an image, in this order."""

    METADATA = "metadata"
    VECTOR = "vector"
    THUMBNAIL = "thumbnail"
    ORIGINAL = "original"
    DUPLICATE_KEY = "duplicate_key"
    DEAD_LETTERS = "dead_letters"
    STATE = "state"


class TrashKind(StrEnum):
    ORIGINAL = "original"
    THUMBNAIL = "thumbnail"
    METADATA = "metadata"
    """A metadata object that could not be read, before it was made again."""
    TOMBSTONE = "tombstone"
    """A tombstone that could not be read, before it was made again."""
    CLAIM = "claim"
    POINTER = "pointer"
    LETTER = "letter"
    """A dead letter as it was when it waited."""
    VECTOR = "vector"
    """A vector with its payload."""
    REPLACED = "replaced"
    """What lay where something was restored to."""


class TenantState(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    """Nothing of it can be uploaded, searched or read until it is resumed."""
    DELETING = "deleting"
    """Everything that it has is being removed; then its row goes, too."""


class Scope(StrEnum):
    """What a key may be used for."""

    UPLOAD = "upload"
    SEARCH = "search"
    READ = "read"
    DELETE = "delete"
    ADMIN = "admin"
    """Running the system, for every tenant: only keys of no tenant have it."""
