"""The web layer on parts in memory, with a stream side that tests write by hand."""

import asyncio
import contextlib
import io
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import FormData, web
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from deeplens_streams.config import Settings, load_settings
from deeplens_streams.errors import DeepLensError, RowMoving
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.features.memory import MemoryFeatures
from deeplens_streams.services import Services
from deeplens_streams.storage import ImageStorage, open_storage
from deeplens_streams.vectors.base import VectorPoint, VectorStore
from deeplens_streams.vectors.memory import MemoryVectors
from deeplens_streams.web import Check, WebContext, application_options, register
from models.events import ImageUploaded, utc_now
from models.status import ImageRow, Step, StepReport, StepStatus

UPLOAD = "/api/v1/images/upload"
SEARCH = "/api/v1/images/search"
TENANT = "demo"


class Rows:
    """`RowSource` of one worker that holds every row."""

    def __init__(self) -> None:
        self.held: dict[str, ImageRow] = {}
        self.moving = False

    async def row(self, image_id: str) -> ImageRow | None:
        return (await self.rows([image_id])).get(image_id)

    async def rows(self, image_ids: Sequence[str]) -> dict[str, ImageRow]:
        if self.moving:
            raise RowMoving
        return {each: self.held[each] for each in image_ids if each in self.held}

    def local_row(self, image_id: str) -> ImageRow | None:
        return self.held.get(image_id)

    def local_page(self, *, limit: int, after: str | None) -> tuple[list[ImageRow], str | None]:
        keys = sorted(key for key in self.held if after is None or key > after)
        rows = [self.held[key] for key in keys[:limit]]
        return rows, keys[limit - 1] if len(keys) > limit else None


class Feed:
    """`StatusFeed` that tests feed."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[ImageRow], None]] = []
        self.watchers: dict[str, set[asyncio.Queue[ImageRow]]] = defaultdict(set)

    @asynccontextmanager
    async def subscribe(self, image_id: str) -> AsyncIterator[asyncio.Queue[ImageRow]]:
        queue: asyncio.Queue[ImageRow] = asyncio.Queue()
        self.watchers[image_id].add(queue)
        try:
            yield queue
        finally:
            self.watchers[image_id].discard(queue)

    def on_change(self, listener: Callable[[ImageRow], None]) -> None:
        self.listeners.append(listener)

    def tell(self, row: ImageRow) -> None:
        for listener in self.listeners:
            listener(row)
        for queue in self.watchers[row.imageId]:
            queue.put_nowait(row)


@dataclass
class Web:
    """A running web layer and what stands behind it."""

    settings: Settings
    storage: ImageStorage
    features: MemoryFeatures | None
    vectors: VectorStore | None
    rows: Rows = field(default_factory=Rows)
    feed: Feed = field(default_factory=Feed)
    published: list[ImageUploaded] = field(default_factory=list)
    #: Raised by the next publishes.
    broker_fault: DeepLensError | None = None
    checks: dict[str, Check] = field(
        default_factory=lambda: {"broker": Check(ok=True), "tables": Check(ok=True)}
    )
    #: Whether uploads are indexed at once, as the stream side would.
    indexes: bool = False
    client: TestClient[web.Request, web.Application] = field(init=False)
    _work: set[asyncio.Task[None]] = field(default_factory=set)

    async def publish(self, event: ImageUploaded) -> None:
        if self.broker_fault is not None:
            raise self.broker_fault
        self.published.append(event)
        if self.indexes:
            task = asyncio.create_task(self.index(event.data.imageId))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def stream_checks(self) -> Mapping[str, Check]:
        return self.checks

    def application(self) -> web.Application:
        app = web.Application(**application_options(self.settings))
        services = Services(
            settings=self.settings,
            storage=self.storage,
            model=self.model,
            features=self.features,
            vectors=self.vectors,
        )
        context = WebContext(
            services=services,
            publish_upload=self.publish,
            rows=self.rows,
            feed=self.feed,
            stream_checks=self.stream_checks,
        )
        register(app, context)
        return app

    @property
    def model(self) -> ModelSpec:
        return MemoryFeatures().model

    @property
    def spooled(self) -> list[Path]:
        """What lies in the folder for uploads under way."""
        return list(self.settings.spool_path.iterdir())

    async def upload(self, data: bytes, name: str = "a.jpg", **fields: str) -> dict[str, Any]:
        """Upload a picture that must be accepted; return the answer."""
        form = FormData(quote_fields=False)  # names as they are, as browsers send them
        form.add_field("tenantId", fields.pop("tenantId", TENANT))
        for key, value in fields.items():
            form.add_field(key, value)
        form.add_field("file", io.BytesIO(data), filename=name)
        async with self.client.post(UPLOAD, data=form) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == 202, answer
            return answer

    async def index(self, image_id: str, *, model: str | None = None) -> None:
        """Do the stream side's work for one upload: vector, thumbnail, final row."""
        assert self.features is not None
        assert self.vectors is not None
        image = await self.storage.find(image_id)
        assert image is not None
        data = await self.storage.get(tenant=image.tenantId, key=image.originalKey)
        assert data is not None
        found = await self.features.extract(data, thumbnail_px=64)
        assert found.thumbnail is not None
        await self.storage.put_thumbnail(
            tenant=image.tenantId, key=image.thumbnailKey, data=found.thumbnail
        )
        payload = {
            "imageId": image_id,
            "fileName": image.fileName,
            "contentType": image.contentType,
            "uploadedBy": image.uploadedBy,
            "uploadedAt": image.uploadedAt,
            "tags": image.tags,
            "thumbnailUrl": f"/api/v1/images/{image_id}/thumbnail",
            "metadata": image.metadata.to_wire(),
        }
        vector = np.asarray(found.vector, dtype=np.float32)
        point = VectorPoint(image_id=image_id, vector=vector, payload=payload)
        name = model or self.model.name
        await self.vectors.upsert([point], tenant=image.tenantId, model=name)
        row = done_row(image_id, models=[name], tenant=image.tenantId)
        row.uploadedAt = image.uploadedAt
        self.rows.held[image_id] = row
        self.feed.tell(row)


@asynccontextmanager
async def running(tmp_path: Path, **options: Any) -> AsyncIterator[Web]:
    """Start the web layer; `options` are settings, or parts by name."""
    storage = options.pop("storage", None)
    parts: dict[str, Any] = {"features": MemoryFeatures(), "vectors": MemoryVectors()}
    parts |= {name: options.pop(name) for name in list(parts) if name in options}
    settings = load_settings(
        **{"data_dir": tmp_path, "storage_url": "memory://", "weights": "untrained"} | options
    )
    found = Web(settings=settings, storage=storage or open_storage(settings), **parts)
    server = TestServer(found.application())
    async with TestClient(server) as client:
        found.client = client
        yield found


def row_of(image_id: str, status: str, steps: Sequence[StepReport], **more: Any) -> ImageRow:
    values: dict[str, Any] = {
        "imageId": image_id,
        "tenantId": TENANT,
        "correlationId": "c0ffee00-0000-4000-8000-000000000000",
        "uploadedAt": utc_now(),
        "models": ["resnet50"],
        "status": status,
        "generation": 1,
        "steps": list(steps),
        "lastUpdated": utc_now(),
    }
    return ImageRow(**(values | more))


def report(step: Step, status: StepStatus, **more: Any) -> StepReport:
    return StepReport(step=step.value, status=status.value, **more)


def done_row(image_id: str, *, models: Sequence[str], tenant: str = TENANT) -> ImageRow:
    steps = [
        report(Step.IMAGE_PROCESSING, StepStatus.COMPLETED, duration=1.5),
        report(Step.THUMBNAIL_GENERATION, StepStatus.COMPLETED, duration=2.5),
    ]
    for model in models:
        steps += [
            report(Step.FEATURE_EXTRACTION, StepStatus.COMPLETED, duration=30.5, modelName=model),
            report(Step.VECTOR_INDEXING, StepStatus.COMPLETED, duration=3.5, modelName=model),
        ]
    return row_of(
        image_id,
        "completed",
        steps,
        models=list(models),
        tenantId=tenant,
        searchableAfter=utc_now(),
    )


def noise_jpeg(size: int) -> bytes:
    """Return a small real JPEG, padded behind its end to `size` bytes, as some cameras do."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (120, 30, 200)).save(buffer, "JPEG")
    return buffer.getvalue().ljust(size, b"\0")


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait for what another task brings about."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 -- conditions are of other tasks' making
                await asyncio.sleep(0.01)
    assert condition()
