"""What remains of a deleted image, and the event that has it purged."""

from models.events import Event
from models.records import StoredRecord, WireRecord
from models.states import PurgeStep

#: Said of these records; `models.states` has them for who does without records.
__all__ = ["PurgeStep"]


class Tombstone(StoredRecord, include_metadata=False):
    """That an image was deleted, when, and which of its parts are gone.

    It outlives the image: it is the proof, and what a purge that was cut off goes on from.
    """

    imageId: str
    tenantId: str
    correlationId: str
    #: ISO-8601 UTC.
    uploadedAt: str
    requestedAt: str
    #: What the purge has to find.
    originalKey: str
    thumbnailKey: str
    checksumSha256: str
    models: list[str]
    #: When each step was done.
    steps: dict[str, str]
    #: When the last one was; null before.
    completedAt: str | None = None
    #: The last one of which its row knew: every run may have left dead letters.
    generation: int = 1
    #: Whether its upload was refused, though Kafka may have its event: then nothing of it stays,
    #: not even this.
    refused: bool = False
    #: What it filled of its tenant's room, where that is limited.
    fileSize: int | None = None
    lease: str | None = None


class TenantPurge(StoredRecord, include_metadata=False):
    """That all that a tenant has is to be removed; what remains of it in the end."""

    tenantId: str
    #: ISO-8601 UTC.
    requestedAt: str
    #: When a look at everything found nothing any more. From then on nothing is removed: there
    #: may be another tenant of this name.
    emptiedAt: str | None = None
    #: When the registry was told, too.
    completedAt: str | None = None
    #: Images that were purged; while it is under way, about as many.
    images: int = 0
    #: Of these, what a version removed that left no mark of each (`Tombstones.mark_purged`).
    unmarked: int = 0
    #: Of the tenant's row, which the clock of another machine said.
    tenantCreatedAt: str | None = None


class ImageDeletedData(WireRecord, include_metadata=False):
    #: Null for all images of the tenant.
    imageId: str | None = None


class ImageDeleted(Event, include_metadata=False):
    """A tombstone was written, and what it stands for is to be purged."""

    EVENT_TYPE = "image.deleted"

    data: ImageDeletedData
