"""Answers about images: uploading, following, searching and deleting them."""

from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema

from deeplens_streams.client.models.base import (
    Answer,
    Cursor,
    ImageId,
    LetterId,
    Reply,
    State,
    TenantId,
    Time,
    one_of,
    record,
)
from models.states import FINAL_STATES as _FINAL
from models.states import PurgeStep, Step, StepStatus

FINAL_STATES: Final = frozenset(state.value for state in _FINAL)
Options = Annotated[dict[str, Any], record("ProcessingOptions")]


class Upload(Reply):
    """An answered upload; `duplicate_of` is the image that has the same bytes, if there is one."""

    image_id: ImageId
    status: State
    message: str | None
    upload_time_ms: float
    estimated_processing_time_seconds: float | None
    status_check_url: str
    web_socket_url: str
    timestamp: Time = ""
    processing_options: Options = Field(default_factory=dict)
    duplicate_of: ImageId | None


class OtherStep(Answer):
    """A step of an image's way that only a newer version knows."""

    step: Annotated[str, Field(description="One that only a newer version knows.")]
    status: Annotated[str, one_of(*StepStatus)]
    duration: Annotated[float, Field(description="Milliseconds.")] | None
    attempt: int
    model_name: str | None
    collection_name: str | None
    error_message: str | None


class ProcessingStep(OtherStep):
    """A step of an image's way."""

    step: Annotated[str, one_of(*Step)]


class Status(Reply):
    """Where an image is on its way."""

    image_id: ImageId
    tenant_id: TenantId
    status: State
    processing_steps: list[ProcessingStep]
    other_steps: list[OtherStep] = Field(default_factory=list)
    percent_complete: Annotated[float, Field(ge=0, le=100)]
    estimated_time_remaining_seconds: float | None
    searchable_after: Time | None
    last_updated: Time
    uploaded_at: Time
    correlation_id: str = ""
    error_code: str | None
    error_message: str | None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_STATES


class Image(Answer):
    """What is known of an image; `status` is null while nobody can tell."""

    image_id: ImageId
    tenant_id: TenantId
    file_name: str
    content_type: str
    file_size: int
    checksum_sha256: str
    uploaded_at: Time
    uploaded_by: str | None
    tags: dict[str, str]
    metadata: Annotated[dict[str, Any], record("PictureFacts")] = Field(default_factory=dict)
    processing_options: Options = Field(default_factory=dict)
    correlation_id: str = ""
    status: State | None
    content_url: str = ""
    thumbnail_url: str | None = None
    status_check_url: str = ""


class ImageAnswer(Reply, Image):
    """What is known of one image."""


class ImagePage(Reply):
    images: list[Image]
    next_cursor: Cursor


class SearchResult(Answer):
    """One search result; the score is the cosine, -1 to 1."""

    image_id: ImageId
    similarity_score: Annotated[float, Field(description="Cosine, -1 to 1.")]
    file_name: str | None
    thumbnail_url: str | None
    uploaded_at: str | None
    metadata: Annotated[dict[str, Any], WithJsonSchema({"type": "object"})] = Field(
        default_factory=dict
    )


class SearchResults(Reply):
    model_name: str = ""
    query_processing_time_ms: float
    result_count: int
    results: list[SearchResult]
    timestamp: Time = ""


class DeletionStep(Answer):
    """What is removed of an image, and when it was."""

    step: Annotated[str, one_of(*PurgeStep)]
    status: Annotated[str, one_of("pending", "completed")]
    at: Time | None


class Deletion(Reply):
    """How far a deletion is; nothing is left once `completed_at` is there."""

    image_id: ImageId
    tenant_id: TenantId
    status: State = ""
    deletion_steps: list[DeletionStep] = Field(default_factory=list)
    requested_at: Time
    completed_at: Time | None


class Retried(Reply):
    image_id: ImageId
    generation: int
    retried: list[LetterId]
