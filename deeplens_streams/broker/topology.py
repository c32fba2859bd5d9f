"""The topology: every topic, and every stage with what it reads, writes and runs as.

What else names a topic or a stage is derived from these rows: agents, consumer groups, lag, labels
of metrics, retries, deletion, the status of an image, the AsyncAPI document and the tables of the
documents. A new stage is a row here and a module of its name in ``agents``.
"""

from dataclasses import dataclass

from deeplens_streams.broker.topics import Topic
from deeplens_streams.config import Role, Settings
from models.deletion import ImageDeleted
from models.events import (
    Event,
    FeatureExtractionRequested,
    ImageUploaded,
    ProcessingCompleted,
    ProcessingFailed,
    VectorIndexingRequested,
)
from models.status import ImageProgress, ImageStatusChanged, Step
from models.tenants import TenantChange, TenantChanged

#: The table of images' rows, and its partitions: as many as the topic that feeds it has.
STATUS_TABLE, TABLE_PARTITIONS = "image_status", 6
#: The same, of tenants.
TENANT_TABLE, TENANT_PARTITIONS = "tenants", 2

UPLOADED = Topic(
    "deeplens.images.uploaded",
    6,
    "uploads that were answered",
    event=ImageUploaded,
    written_by="the upload endpoint",
)
EXTRACTION = Topic(
    "deeplens.features.extraction",
    4,
    "one request for each picture and model",
    event=FeatureExtractionRequested,
)
INDEXING = Topic(
    "deeplens.vectors.indexing",
    4,
    "vectors to be stored",
    event=VectorIndexingRequested,
    retention="vector_retention_days",
)
DELETED = Topic(
    "deeplens.images.deleted",
    4,
    "deleted pictures that are to be purged",
    event=ImageDeleted,
    written_by="the delete endpoints",
)
PROGRESS = Topic(
    "deeplens.images.progress",
    TABLE_PARTITIONS,
    "what each stage reports",
    event=ImageProgress,
    written_by="every stage",
    is_fixed=True,
)
STATUS = Topic(
    "deeplens.images.status",
    TABLE_PARTITIONS,
    "each picture's present row",
    event=ImageStatusChanged,
    retention=None,
    is_fixed=True,
)
COMPLETED = Topic(
    "deeplens.processing.completed", 2, "pictures that reached their end", event=ProcessingCompleted
)
FAILED = Topic(
    "deeplens.processing.failed",
    2,
    "dead letters",
    event=ProcessingFailed,
    written_by="any stage",
    retention="failed_retention_days",
    # A dead letter carries the whole message that failed, base64 in the worst case.
    max_bytes=8_388_608,
)
TENANT_CHANGES = Topic(
    "deeplens.tenants.changes",
    TENANT_PARTITIONS,
    "what is to change of tenants",
    event=TenantChange,
    written_by="the admin endpoints",
    is_fixed=True,
)
TENANTS = Topic(
    "deeplens.tenants",
    1,
    "each tenant as it is now",
    event=TenantChanged,
    retention=None,
    # It is small, rewritten all the time, and every api process reads it whole before it answers.
    dirty_ratio=0.1,
    is_fixed=True,
)

#: In pipeline order.
TOPICS = (
    *(UPLOADED, EXTRACTION, INDEXING, DELETED, PROGRESS, STATUS, COMPLETED, FAILED),
    *(TENANT_CHANGES, TENANTS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """One stage: which events it takes, where, and what it has to do with an image's steps.

    Attributes
    ----------
    name : as dead letters, metrics and logs have it, and its module in ``agents``.
    topic : what it reads; each is read by one stage.
    role : who runs it; it reads in that role's consumer group.
    agent : the Faust agent's name.
    concurrency : actors in one worker, or the setting that says how many. A table's has one.
    writes : where its results go, beside the reports and dead letters that any may write.
    step : of an image's row that it takes; None where it takes none.
    by_model : whether the step is taken once for each model.
    id_word : the first word of the IDs of the step's events; they stay as they are.
    is_decisive : whether what becomes of an image, or what its tenant has, depends on it.
    """

    name: str
    topic: Topic
    role: Role
    agent: str
    concurrency: int | str = 1
    writes: tuple[Topic, ...] = ()
    step: Step | None = None
    by_model: bool = False
    id_word: str = ""
    is_decisive: bool = True

    @property
    def event(self) -> type[Event]:
        """What it takes."""
        assert self.topic.event is not None, "Faust's own topics have no stage"
        return self.topic.event

    def actors(self, settings: Settings) -> int:
        """Return how many of them one worker has."""
        if isinstance(self.concurrency, int):
            return self.concurrency
        count: int = getattr(settings, self.concurrency)
        return count


IMAGE_PROCESSING = StageSpec(
    name="image_processing",
    topic=UPLOADED,
    role=Role.PROCESS,
    agent="ImageProcessingWorker",
    concurrency=8,
    writes=(EXTRACTION,),
    step=Step.IMAGE_PROCESSING,
    id_word="upload",
)
FEATURE_EXTRACTION = StageSpec(
    name="feature_extraction",
    topic=EXTRACTION,
    role=Role.EXTRACT,
    agent="FeatureExtractionWorker",
    # Actors wait in the model's batcher together: that is where batches come from.
    concurrency="extract_concurrency",
    writes=(INDEXING,),
    step=Step.FEATURE_EXTRACTION,
    by_model=True,
    id_word="extract",
)
VECTOR_INDEXING = StageSpec(
    name="vector_indexing",
    topic=INDEXING,
    role=Role.INDEX,
    agent="VectorIndexingWorker",
    concurrency=8,
    step=Step.VECTOR_INDEXING,
    by_model=True,
    id_word="index",
)
STATUS_TRACKING = StageSpec(
    name="status_tracking",
    topic=PROGRESS,
    role=Role.API,
    agent="StatusTracker",
    writes=(STATUS, COMPLETED, TENANT_CHANGES),
)
PURGING = StageSpec(
    name="purging",
    topic=DELETED,
    role=Role.INDEX,
    agent="Purger",
    concurrency=4,
    writes=(TENANT_CHANGES,),
)
TENANT_KEEPING = StageSpec(
    name="tenants", topic=TENANT_CHANGES, role=Role.API, agent="TenantKeeper", writes=(TENANTS,)
)
NOTIFICATIONS = StageSpec(
    name="notifications",
    topic=COMPLETED,
    role=Role.API,
    agent="Notifier",
    concurrency=2,
    is_decisive=False,
)
DEAD_LETTERS = StageSpec(
    name="dead_letters", topic=FAILED, role=Role.API, agent="DeadLetterKeeper", concurrency=2
)

#: Every stage, in pipeline order.
STAGES = (
    *(IMAGE_PROCESSING, FEATURE_EXTRACTION, VECTOR_INDEXING),
    *(STATUS_TRACKING, PURGING, TENANT_KEEPING, NOTIFICATIONS, DEAD_LETTERS),
)
STAGE_BY_NAME = {each.name: each for each in STAGES}
#: Who reads a topic; those that are not here are read by every api process, without a group.
READERS = {each.topic: each for each in STAGES}
#: The stages that an image goes through, in order, and which takes a step. Steps that none of
#: them is for are done by one of them on the way.
STEP_STAGES = {each.step: each for each in STAGES if each.step is not None}


def writers(topic: Topic) -> str:
    """Return in words who writes to a topic."""
    stages = [each.name for each in STAGES if topic in each.writes]
    *first, last = [topic.written_by, *stages] if topic.written_by else stages
    return f"{', '.join(first)} and {last}" if first else last


def readers(topic: Topic) -> str:
    """Return in words who reads a topic."""
    return READERS[topic].name if topic in READERS else "every api process"


def group_id(role: Role, namespace: str) -> str:
    """Return the consumer group of a role, which is its app's ID."""
    prefix = f"{namespace}-" if namespace else ""
    return f"{prefix}deeplens-{role.value}"


#: Faust would create it, too, but after its producer has read which topics there are: until the
#: next look, minutes later, rows could not be written.
CHANGELOGS = tuple(
    Topic(
        f"{group_id(Role.API, '')}-{table}-changelog",
        partitions,
        purpose,
        retention=None,
        separator="-",
        is_fixed=True,
    )
    for table, partitions, purpose in (
        (STATUS_TABLE, TABLE_PARTITIONS, "the status table, to recover it from"),
        (TENANT_TABLE, TENANT_PARTITIONS, "the registry of tenants, to recover it from"),
    )
)
