"""What storage keeps beside a picture's bytes."""

from models.events import PictureFacts, ProcessingOptions
from models.records import StoredRecord


class StoredImage(StoredRecord, include_metadata=False):
    """The metadata object: its presence means that the upload was accepted.

    A stage that finds none for an event's image *and* tenant drops the event: the upload
    was refused after its event was sent, the picture was deleted, or the event is forged.
    """

    imageId: str
    tenantId: str
    correlationId: str
    #: The client's name for the file, made safe to show; never part of a path.
    fileName: str
    #: Keys in storage.
    originalKey: str
    thumbnailKey: str
    #: Bytes.
    fileSize: int
    #: By content, not by the client's word.
    contentType: str
    checksumSha256: str
    #: ISO-8601 UTC.
    uploadedAt: str
    metadata: PictureFacts
    processingOptions: ProcessingOptions
    tags: dict[str, str]
    uploadedBy: str | None = None
    #: The tenant's room that it fills, where that is limited.
    lease: str | None = None
