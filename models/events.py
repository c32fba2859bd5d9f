"""The five events of the pipeline, one Record each, as they stand on the wire.

Field names are the wire's own (camelCase), so that the code, the topics and the
contract say the same words. A field without a default is required on reading; every
other one may be missing on reading and is always written.
"""

import random
import uuid
from datetime import UTC, datetime
from typing import Any, Protocol, Self

from models.records import SCHEMA_VERSION, WireRecord

#: Of an event that was not read from a topic.
NOWHERE = (-1, -1)

#: Namespace of every deterministic ID of this project; a repeat of the same work makes the same ID.
ID_NAMESPACE = uuid.UUID("6f6cf1a4-1d0b-5d0c-9c55-9a1f0c3b7e11")


_RANDOM = random.Random()  # noqa: S311 - an event's ID is a name, not a secret  # nosec B311


def utc_now() -> str:
    """Return the time now as ISO-8601 UTC with milliseconds, ending in ``Z``."""
    return wire_time(datetime.now(UTC))


def wire_time(moment: datetime) -> str:
    """Return a moment as every time is written: ISO-8601 UTC, milliseconds, ending in ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_event_id() -> str:
    """Return a random UUID; unlike `uuid.uuid4` it asks the kernel once, not every time."""
    return str(uuid.UUID(int=_RANDOM.getrandbits(128), version=4))


def derived_id(*parts: object) -> str:
    """Return the UUID (version 5) that belongs to `parts`, the same each time."""
    return str(uuid.uuid5(ID_NAMESPACE, "/".join(str(part) for part in parts)))


class Cause(Protocol):
    """What an event follows from: another event, or a picture's row."""

    tenantId: str
    correlationId: str
    generation: int


class Event(WireRecord, abstract=True, include_metadata=False):
    """What all events share: the envelope, beside which each event has its ``data``."""

    #: The value of ``eventType`` that this class reads and writes.
    EVENT_TYPE = ""
    #: Partition and offset that an event was read at; an event's order, and no part of it.
    place = NOWHERE

    eventType: str
    tenantId: str
    #: The upload event's ``eventId``, unchanged through every later event.
    correlationId: str
    #: One event's own ID; steps that may repeat derive it, so that a repeat is the same event.
    eventId: str = ""
    eventVersion: str = SCHEMA_VERSION
    timestamp: str = ""
    #: Opened by a retry: a step of a higher generation wins over every lower one.
    generation: int = 1

    @classmethod
    def new(cls, tenant: str, data: Any, **fields: Any) -> Self:
        """Return an event of now; `fields` are those of the envelope that are not as usual."""
        usual = {"eventId": new_event_id(), "timestamp": utc_now()}
        return cls(eventType=cls.EVENT_TYPE, tenantId=tenant, data=data, **(usual | fields))

    @classmethod
    def following(cls, cause: "Cause", data: Any, **fields: Any) -> Self:
        """Return an event that `cause` brought about: of its tenant, upload and generation.

        What a newer version has in the envelope beside these goes on with them.
        """
        event = cls.new(
            cause.tenantId,
            data,
            correlationId=cause.correlationId,
            generation=cause.generation,
            **fields,
        )
        return event.carrying(cause) if isinstance(cause, Event) else event

    @property
    def image_id(self) -> str | None:
        """The image that the event speaks of; every event's ``data`` names it."""
        image_id: str | None = self.data.imageId
        return image_id

    @property
    def key(self) -> str:
        """What the event is partitioned by: events of one key keep their order."""
        return self.image_id or self.eventId


class PictureFacts(WireRecord, include_metadata=False):
    """What the header of the file says of the picture."""

    width: int | None = None
    height: int | None = None
    format: str | None = None
    colorProfile: str | None = None
    originalFileName: str | None = None
    exifData: dict[str, Any] | None = None
    #: What is missing of a picture that can be shown all the same; not in the contract.
    notes: list[str] | None = None
    #: Of what read the header; null before there was one. Not in the contract.
    preprocessingVersion: int | None = None


class ProcessingOptions(WireRecord, include_metadata=False):
    """What the client asked for at upload."""

    models: list[str] | None = None
    priority: str = "normal"
    skipDuplicateCheck: bool = False
    generateThumbnail: bool = True


class ImageUploadedData(WireRecord, include_metadata=False):
    imageId: str
    fileName: str
    filePath: str
    fileSize: int
    contentType: str
    uploadedBy: str | None = None
    checksumSha256: str | None = None
    metadata: PictureFacts | None = None
    #: With the tenant and the image ID it names the metadata object; not in the contract.
    uploadedAt: str | None = None


class ImageUploaded(Event, include_metadata=False):
    """An upload's bytes and metadata are stored. Written by the upload endpoint."""

    EVENT_TYPE = "image.uploaded"

    data: ImageUploadedData
    #: The first event of a picture may come without: its ``eventId`` is the correlation ID.
    correlationId: str = ""
    processingOptions: ProcessingOptions | None = None


class ExtractionOptions(WireRecord, include_metadata=False):
    normalize: bool = True
    returnMetadata: bool = False
    #: Milliseconds.
    timeout: int = 30_000


class RetryPolicy(WireRecord, include_metadata=False):
    maxAttempts: int = 3
    backoffMs: int = 1000
    currentAttempt: int = 0


class FeatureExtractionData(WireRecord, include_metadata=False):
    imageId: str
    imagePath: str
    modelName: str
    expectedDimension: int
    modelVersion: str | None = None
    extractionOptions: ExtractionOptions | None = None
    #: As in `ImageUploadedData`.
    uploadedAt: str | None = None


class FeatureExtractionRequested(Event, include_metadata=False):
    """One model is to look at one picture. Written by the image processing agent."""

    EVENT_TYPE = "feature.extraction.requested"

    data: FeatureExtractionData
    retryPolicy: RetryPolicy | None = None


class VectorMetadata(WireRecord, include_metadata=False):
    extractionTime: str
    #: Milliseconds.
    processingTimeMs: float
    modelVersion: str
    #: Of what decoded the picture; null before there was one. Not in the contract.
    preprocessingVersion: int | None = None


class VectorIndexingData(WireRecord, include_metadata=False):
    imageId: str
    modelName: str
    #: L2-normalised; its length is checked against the model, not here.
    featureVector: list[float]
    vectorMetadata: VectorMetadata
    imageMetadata: dict[str, Any] | None = None
    #: As in `ImageUploadedData`.
    uploadedAt: str | None = None


class VectorIndexingRequested(Event, include_metadata=False):
    """A vector is to be stored. Written by the feature extraction agent."""

    EVENT_TYPE = "vector.indexing.requested"

    data: VectorIndexingData


class CompletedStep(WireRecord, include_metadata=False):
    step: str
    status: str
    #: Milliseconds.
    duration: float | None = None
    modelName: str | None = None
    collectionName: str | None = None


class ProcessingCompletedData(WireRecord, include_metadata=False):
    imageId: str
    #: ``success`` or ``partial``.
    status: str
    totalProcessingTimeMs: float
    searchableAfter: str
    processingSteps: list[CompletedStep]


class ProcessingCompleted(Event, include_metadata=False):
    """A picture reached its end. Written by the agent that owns the status table."""

    EVENT_TYPE = "processing.completed"

    data: ProcessingCompletedData


class ProcessingFailedData(WireRecord, include_metadata=False):
    failedStep: str
    errorCode: str
    errorMessage: str
    #: Null when the message could not be read far enough to say whose it was.
    imageId: str | None = None
    stackTrace: str | None = None
    retryAttempt: int = 0
    canRetry: bool = False
    #: The whole event that failed, or the raw bytes of one that could not be read.
    originalEvent: dict[str, Any] | None = None


class ProcessingFailed(Event, include_metadata=False):
    """The dead letter. Written by any stage."""

    EVENT_TYPE = "processing.failed"

    data: ProcessingFailedData
