"""Progress of an image as its row is fed with it."""

from models.status import (
    ImageProgress,
    ImageProgressData,
    ImageRow,
    Step,
    StepReport,
    StepStatus,
)
from tables import image_status

IMAGE = "img_98765432-4321-4321-4321-210987654321"
MODELS = ["resnet50", "other"]
#: When rows are written.
NOW = "2026-01-01T00:00:05.000Z"


def event(*reports: StepReport, generation: int = 1, tenant: str = "acme-corp") -> ImageProgress:
    return ImageProgress(
        eventType=ImageProgress.EVENT_TYPE,
        tenantId=tenant,
        correlationId="corr",
        timestamp="2026-01-01T00:00:00.000Z",
        generation=generation,
        data=ImageProgressData(
            imageId=IMAGE,
            reports=list(reports),
            models=MODELS,
            uploadedAt="2026-01-01T00:00:00.000Z",
        ),
    )


def report(
    step: Step, status: StepStatus = StepStatus.COMPLETED, model: str | None = None
) -> StepReport:
    code = "UNDECODABLE_IMAGE" if status == StepStatus.FAILED else None
    return StepReport(
        step=step.value,
        status=status.value,
        modelName=model,
        at="2026-01-01T00:00:01.000Z",
        errorCode=code,
        errorMessage=code,
    )


def joined(row: ImageRow | None, event: ImageProgress) -> ImageRow | None:
    """Return the row with what an event reports, written at `NOW`."""
    return image_status.joined(row, event, now=NOW)


def good_way() -> list[ImageProgress]:
    return [
        event(report(Step.IMAGE_PROCESSING)),
        event(report(Step.THUMBNAIL_GENERATION), report(Step.FEATURE_EXTRACTION, model="resnet50")),
        event(report(Step.VECTOR_INDEXING, model="resnet50")),
        event(report(Step.FEATURE_EXTRACTION, model="other")),
        event(report(Step.VECTOR_INDEXING, model="other")),
    ]


def run(events: list[ImageProgress]) -> tuple[ImageRow, list[str]]:
    row: ImageRow | None = None
    states = []
    for each in events:
        after = joined(row, each)
        if after is not None:
            row = after
            states.append(after.status)
    assert row is not None
    return row, states
