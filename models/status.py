"""Where a picture is on its way: steps, their order, and the row that remembers them.

A row is a join of everything reported so far: each step keeps the report of the highest
(generation, rank), so reports may come late, twice or out of order and the row is the same.
"""

from enum import StrEnum
from typing import cast

from models.events import Event
from models.records import StoredRecord, WireRecord
from models.states import FINAL_STATES, ImageState, Step, StepStatus

#: Said of these records; `models.states` has them for who does without records.
__all__ = ["FINAL_STATES", "ImageState", "Step", "StepStatus"]


#: How far a step is. Within one generation a step only ever moves to a higher rank.
STEP_RANK: dict[StepStatus, int] = {
    StepStatus.PENDING: 0,
    StepStatus.IN_PROGRESS: 1,
    StepStatus.RETRYING: 2,
    StepStatus.SKIPPED: 3,
    StepStatus.FAILED: 4,
    StepStatus.COMPLETED: 5,
}

#: Ranks from here on are the end of a step.
FINAL_RANK = STEP_RANK[StepStatus.SKIPPED]


def rank_of(status: str) -> int:
    """Return how far a step is; with a status of a newer version, not at its end."""
    return STEP_RANK.get(cast(StepStatus, status), STEP_RANK[StepStatus.RETRYING])


class Ending(StrEnum):
    """How a picture's row ends without a result."""

    DELETED = "deleted"
    """It has a tombstone."""
    DROPPED = "dropped"
    """It is not stored: its upload was refused after all. Only a row that is there is ended."""
    PURGED = "purged"
    """Its tenant is gone: the row goes, too."""


class StepReport(WireRecord, include_metadata=False):
    """What a stage says of one step of one picture."""

    step: str
    status: str
    #: Milliseconds.
    duration: float | None = None
    attempt: int = 1
    #: Null for steps that are done once for all models.
    modelName: str | None = None
    collectionName: str | None = None
    errorCode: str | None = None
    errorMessage: str | None = None
    generation: int = 1
    #: When the stage said so, ISO-8601 UTC.
    at: str = ""


class ImageProgressData(WireRecord, include_metadata=False):
    imageId: str
    reports: list[StepReport]
    #: Every model that this picture is to be stored for: the end is known from it. Null
    #: from a stage that failed before it knew.
    models: list[str] | None = None
    uploadedAt: str | None = None
    #: Bytes; null from a stage that failed before it knew.
    fileSize: int | None = None
    #: The tenant's room that the upload filled, if its room is limited.
    lease: str | None = None
    #: An `Ending`, or null while the picture is on its way.
    ending: str | None = None


class ImageProgress(Event, include_metadata=False):
    """Steps that moved. Written by every stage to the progress topic, keyed by image ID."""

    EVENT_TYPE = "image.progress"

    data: ImageProgressData


class ImageRow(StoredRecord, include_metadata=False):
    """The status table's value: everything known of one picture's way."""

    imageId: str
    tenantId: str
    correlationId: str
    uploadedAt: str
    models: list[str]
    status: str
    generation: int
    steps: list[StepReport]
    lastUpdated: str
    #: When the first vector was stored; null before.
    searchableAfter: str | None = None
    errorCode: str | None = None
    errorMessage: str | None = None
    #: Bytes that count for its tenant; null until a stage has said so.
    fileSize: int | None = None
    lease: str | None = None
    #: Offsets of the progress topic at which its tenant's usage grew and shrank by it.
    countedAt: int | None = None
    uncountedAt: int | None = None
    #: Why a row that says deleted does: one of `Ending`; null where an older version wrote it.
    ending: str | None = None


class ImageStatusChanged(Event, include_metadata=False):
    """A row as it is now. Written for each changed row to the compacted status topic."""

    EVENT_TYPE = "image.status.changed"

    data: ImageRow
