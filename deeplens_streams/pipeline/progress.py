"""What stages say of a picture's steps, as messages to the progress topic."""

import time
from typing import Any

from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import PROGRESS, StageSpec
from deeplens_streams.errors import DeepLensError
from deeplens_streams.pipeline.stage import ReportFailure
from models.deletion import Tombstone
from models.events import Event, utc_now
from models.images import StoredImage
from models.status import (
    Ending,
    ImageProgress,
    ImageProgressData,
    ImageRow,
    Step,
    StepReport,
    StepStatus,
)


def report(
    step: Step,
    status: StepStatus,
    *,
    started: float | None = None,
    model: str | None = None,
    collection: str | None = None,
    error: DeepLensError | None = None,
    attempt: int = 1,
) -> StepReport:
    """Describe one step; `started` is a `time.perf_counter` reading."""
    return StepReport(
        step=step.value,
        status=status.value,
        attempt=attempt,
        duration=None if started is None else round((time.perf_counter() - started) * 1000, 3),
        modelName=model,
        collectionName=collection,
        errorCode=error.code if error else None,
        errorMessage=error.message if error else None,
        at=utc_now(),
    )


def progress(event: Event, reports: list[StepReport], image: StoredImage | None = None) -> Message:
    """Return the message that tells the status table of steps of `event`'s picture.

    `image` is its stored metadata, or None where a stage failed before it had read it: then
    there is what the event itself says.
    """
    assert event.image_id is not None
    options = image.processingOptions if image else getattr(event, "processingOptions", None)
    uploaded_at = image.uploadedAt if image else getattr(event.data, "uploadedAt", None)
    return Message(
        PROGRESS,
        ImageProgress.following(
            event,
            ImageProgressData(
                imageId=event.image_id,
                reports=reports,
                models=options.models if options else None,
                uploadedAt=uploaded_at,
                fileSize=image.fileSize if image else None,
                lease=image.lease if image else None,
            ),
        ),
    )


def ending(
    ended: Event | ImageRow | Tombstone, how: Ending, *, uploaded_at: str | None = None
) -> Message:
    """Return the message that ends the row of a picture without a result.

    Parameters
    ----------
    ended : names the picture.
    uploaded_at : ISO-8601 UTC, where the picture may have no row yet.
    """
    tombstone = ended if isinstance(ended, Tombstone) else None
    image_id = ended.image_id if isinstance(ended, Event) else ended.imageId
    assert image_id is not None
    data = ImageProgressData(
        imageId=image_id,
        reports=[],
        ending=how.value,
        uploadedAt=uploaded_at,
        # For a picture that does not count yet: its room is free again.
        fileSize=tombstone.fileSize if tombstone else None,
        lease=tombstone.lease if tombstone else None,
    )
    return Message(
        PROGRESS, ImageProgress.new(ended.tenantId, data, correlationId=ended.correlationId)
    )


def failure_reporter(stage: StageSpec) -> ReportFailure:
    """Return what has an image's row say that its step waits or has failed.

    A stage that takes no step of an image has nothing to report.
    """

    def reported(
        event: Any, status: StepStatus, error: DeepLensError, attempt: int
    ) -> list[Message]:
        if stage.step is None:
            return []
        model = event.data.modelName if stage.by_model else None
        failure = report(stage.step, status, model=model, error=error, attempt=attempt)
        return [progress(event, [failure])]

    return reported
