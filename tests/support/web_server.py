"""The web layer on parts in memory, with a stream side that tests write by hand."""

import asyncio
import contextlib
import io
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
from aiohttp import FormData, web
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from agents import purging, tenants
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import DELETED, PROGRESS, TENANT_CHANGES, UPLOADED
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.errors import DeepLensError, RowMoving
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.ingest.acceptance import UploadAcceptance
from deeplens_streams.ingest.body_rate import BodyRateLimit
from deeplens_streams.ingest.timings import Timings
from deeplens_streams.interactive_queries.shard import (
    Entry,
    Partition,
    TablePage,
    TableShard,
    merged,
)
from deeplens_streams.interactive_queries.sources import TableInfo
from deeplens_streams.services import Services
from deeplens_streams.status.outages import Outages
from deeplens_streams.storage import Blobs, ImageStorage, ObjectImages, open_blobs
from deeplens_streams.storage.admin_log import AdminLog
from deeplens_streams.storage.dead_letters import DeadLetterStore
from deeplens_streams.storage.duplicate_claims import DuplicateClaims
from deeplens_streams.storage.inventory import Inventory
from deeplens_streams.storage.tenant_records import TenantRecords
from deeplens_streams.storage.tombstones import Tombstones
from deeplens_streams.storage.trash import Trash
from deeplens_streams.tenancy.quotas import Quotas
from deeplens_streams.tenancy.registry import Registry, change_of
from deeplens_streams.testing.features import MemoryFeatures
from deeplens_streams.testing.vectors import MemoryVectors
from deeplens_streams.vectors.base import VectorPoint, VectorStore
from deeplens_streams.web import (
    Check,
    Runner,
    WebContext,
    application_options,
    register,
    server_options,
)
from deeplens_streams.web.app_keys import ACCEPTANCE, BODY_RATE, CONTEXT
from models.events import utc_now
from models.status import Ending, ImageRow, Step, StepReport, StepStatus
from models.tenants import (
    ChangeKind,
    Count,
    Tenant,
    TenantChange,
    TenantChanged,
    TenantChangeData,
)
from tables import image_status
from tests.support.openapi_answers import breaches

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


@dataclass
class Tables:
    """`TableSource` of the status table, all of which this worker holds."""

    rows: Rows
    #: Partitions that somebody else has, and what they hold.
    others: list[TableShard] = field(default_factory=list)
    owners: dict[int, str | None] = field(default_factory=lambda: {0: "http://here"})

    def known(self) -> list[TableInfo]:
        return [
            TableInfo(
                name=image_status.NAME,
                purpose="for tests",
                partitions=len(self.owners),
                changelog="changelog",
                value_type="ImageRow",
            )
        ]

    async def page(self, name: str, *, limit: int, after: str | None) -> TablePage:
        here = await self.local_share(name, limit=limit, after=after)
        return merged([here, *self.others], self.owners, limit=limit)

    async def row(self, name: str, key: str) -> Entry | None:
        if self.rows.moving:
            raise RowMoving
        return self.local_row(name, key)

    async def local_share(self, name: str, *, limit: int, after: str | None) -> TableShard:
        held = self.rows.held
        keys = sorted(key for key in held if after is None or key > after)
        partition = Partition(0, "http://here", "ready", len(held), 1000, 0)
        return TableShard(
            [partition], [Entry(key, held[key].to_wire()) for key in keys[: limit + 1]]
        )

    def local_row(self, name: str, key: str) -> Entry | None:
        found = self.rows.held.get(key)
        return None if found is None else Entry(key, found.to_wire())


@dataclass
class Pressure:
    """`Backlog` that tests set."""

    waiting: int | None = None
    drain_rate: float | None = None
    #: How far behind the watermark is, in seconds; None where it is not known.
    behind_s: float | None = 0.0

    @property
    def read_up_to(self) -> datetime | None:
        if self.behind_s is None:
            return None
        return datetime.now(UTC) - timedelta(seconds=self.behind_s)


class Feed:
    """`StatusFeed` that tests feed."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[ImageRow], None]] = []
        self.watchers: dict[str, set[asyncio.Queue[ImageRow]]] = defaultdict(set)
        self.outages = Outages()

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
        self.outages.look(row.to_wire())
        for listener in self.listeners:
            listener(row)
        for queue in self.watchers[row.imageId]:
            queue.put_nowait(row)


@dataclass
class Web:
    """A running web layer and what stands behind it."""

    settings: Settings
    blobs: Blobs
    features: MemoryFeatures | None
    vectors: VectorStore | None
    rows: Rows = field(default_factory=Rows)
    feed: Feed = field(default_factory=Feed)
    tables: Tables = field(init=False)
    backlog: Pressure = field(default_factory=Pressure)
    #: The events of uploads, and everything that was sent.
    published: list[Any] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    #: Raised by the next publishes.
    broker_fault: DeepLensError | None = None
    checks: dict[str, Check] = field(
        default_factory=lambda: {"broker": Check(ok=True), "tables": Check(ok=True)}
    )
    #: Whether uploads are indexed at once, as the stream side would.
    indexes: bool = False
    #: Whether the stream side would tell the registry what is indexed and deleted.
    counts: bool = False
    #: Whether what is deleted is purged at once, as the stream side would.
    purges: bool = False
    tenants: dict[bytes, Tenant] = field(default_factory=dict)
    registry: Registry = field(init=False)
    tenant_records: TenantRecords = field(init=False)
    quotas: Quotas = field(init=False)
    #: What was answered and is not in the OpenAPI document.
    breaches: list[str] = field(default_factory=list)
    #: Sees every request that is answered.
    on_request: Callable[[web.Request], None] = lambda _request: None
    client: TestClient[web.Request, web.Application] = field(init=False)
    _offset: int = 0
    _work: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.registry = Registry(self.publish, is_open=self.settings.admin_key is None)
        self.registry.mark_whole()
        self.tenant_records = TenantRecords(self.blobs, Tombstones(self.blobs))
        self.quotas = Quotas(self.settings, self.registry)
        self.tables = Tables(self.rows)

    async def publish(self, *messages: Message) -> None:
        if self.broker_fault is not None:
            raise self.broker_fault
        for each in messages:
            if each.topic is TENANT_CHANGES:
                await self.change_tenant(cast(TenantChange, each.event))
        self.sent += [each for each in messages if each.topic is not TENANT_CHANGES]
        uploads = [each.event for each in messages if each.topic is UPLOADED]
        self.published += uploads
        work = [self.index(cast(str, event.image_id)) for event in uploads if self.indexes]
        if self.purges:
            work += [self.purge(each.event) for each in messages if each.topic is DELETED]
        for step in work:
            task = asyncio.create_task(step)
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def change_tenant(self, event: TenantChange) -> None:
        """Do the stream side's work for a change of a tenant."""
        services, is_open = self.context.services, self.registry.is_open
        for message in await tenants.process(event, self.tenants, services, is_open=is_open):
            row = None if message.is_tombstone else cast(TenantChanged, message.event).data
            self.registry.take(event.tenantId, row)

    async def stream_checks(self) -> Mapping[str, Check]:
        return self.checks

    @property
    def storage(self) -> ImageStorage:
        return ObjectImages(self.blobs)

    @property
    def claims(self) -> DuplicateClaims:
        return DuplicateClaims(self.blobs)

    def application(self) -> web.Application:
        app = web.Application(**application_options(self.settings))
        register(app, self.context)
        app.on_response_prepare.append(self._compare)
        return app

    async def _compare(self, request: web.Request, response: web.StreamResponse) -> None:
        self.on_request(request)
        self.breaches += breaches(request, response)

    @property
    def context(self) -> WebContext:
        services = Services(
            settings=self.settings,
            storage=self.storage,
            claims=self.claims,
            letters=DeadLetterStore(self.blobs),
            tombstones=Tombstones(self.blobs),
            actions=AdminLog(self.blobs),
            trash=Trash(self.blobs),
            inventory=Inventory(self.blobs),
            tenant_records=self.tenant_records,
            model=self.model,
            features=self.features,
            vectors=self.vectors,
        )
        return WebContext(
            services=services,
            publish=self.publish,
            rows=self.rows,
            feed=self.feed,
            tables=self.tables,
            backlog=self.backlog,
            registry=self.registry,
            quotas=self.quotas,
            stream_checks=self.stream_checks,
        )

    @property
    def services(self) -> Services:
        """Return those that the running application has."""
        return cast(TestServer, self.client.server).app[CONTEXT].services

    @property
    def model(self) -> ModelSpec:
        return (self.features or MemoryFeatures()).model

    @property
    def acceptance(self) -> UploadAcceptance:
        """What accepts uploads in the running application."""
        return self.client.app[ACCEPTANCE]

    def hasten(self, **seconds: float) -> None:
        """Have uploads wait no longer than this."""
        self.acceptance.timings = self.acceptance.duplicates.timings = Timings(**seconds)

    @property
    def body_rate(self) -> BodyRateLimit:
        """The bodies that are being read."""
        return self.client.app[BODY_RATE]

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

    async def count(self, row: ImageRow, images: int, lease: str | None = None) -> None:
        """Tell the registry of a picture that came or went, as the status table would."""
        size = row.fileSize or 0
        self._offset += 1
        count = Count(
            offset=self._offset,
            images=images,
            bytes=images * size,
            lease=lease,
            leaseImages=1,
            leaseBytes=size,
        )
        data = TenantChangeData(kind=ChangeKind.COUNT.value, partition=0, counts=[count])
        await self.change_tenant(change_of(row.tenantId, data))

    async def settled(self) -> None:
        """Wait for what the stream side has begun."""
        await asyncio.gather(*self._work)

    async def purge(self, event: Any) -> None:
        """Do the stream side's work for a deletion; rows are told, too."""
        for message in await purging.process(event, self.context.services, self.send):
            row = image_status.joined(
                self.rows.held.get(event.image_id), cast(Any, message.event), now=utc_now()
            )
            if row is not None:
                before = self.rows.held.get(event.image_id)
                if self.counts and before is not None:
                    await self.count(before, -1)
                self.rows.held[event.image_id] = row

    async def send(self, *messages: Message) -> None:
        for each in messages:
            if each.topic is PROGRESS and cast(Any, each.event).data.ending == Ending.PURGED:
                self.rows.held.pop(cast(Any, each.event).image_id, None)
        await self.publish(*messages)

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
            "fileSize": image.fileSize,
            "checksumSha256": image.checksumSha256,
            "tags": image.tags,
            "hasThumbnail": True,
            "metadata": image.metadata.to_wire(),
            "preprocessingVersion": found.preprocessing,
        }
        vector = np.asarray(found.vector, dtype=np.float32)
        point = VectorPoint(image_id=image_id, vector=vector, payload=payload)
        name = model or self.model.name
        await self.vectors.upsert([point], tenant=image.tenantId, model=name)
        row = done_row(image_id, models=[name], tenant=image.tenantId)
        row.uploadedAt, row.fileSize = image.uploadedAt, image.fileSize
        if self.counts:
            await self.count(row, 1, lease=image.lease)
        self.rows.held[image_id] = row
        self.feed.tell(row)


class Server(TestServer):
    """aiohttp's server for tests, with the connections that a worker's has."""

    async def _make_runner(self, **kwargs: Any) -> Runner:
        # aiohttp's cancels a request whose client has gone, and a worker does not.
        return Runner(self.app, **kwargs | {"handler_cancellation": False})


@asynccontextmanager
async def running(tmp_path: Path, **options: Any) -> AsyncIterator[Web]:
    """Start the web layer; `options` are settings, or parts by name."""
    blobs = options.pop("blobs", None)
    shared = options.get("tenancy") == "shared"
    parts: dict[str, Any] = {"features": MemoryFeatures(), "vectors": MemoryVectors(shared=shared)}
    parts |= {name: options.pop(name) for name in list(parts) if name in options}
    settings = load_settings(
        **{"data_dir": tmp_path, "storage_url": "memory://", "weights": "untrained"} | options
    )
    found = Web(settings=settings, blobs=blobs or open_blobs(settings), **parts)
    server = Server(found.application())
    await server.start_server(**server_options(settings))
    async with TestClient(server) as client:
        found.client = client
        yield found
    assert not found.breaches, found.breaches


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
