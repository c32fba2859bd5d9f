"""A system whose every durable write can be the last one."""

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, cast
from unittest.mock import patch

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from obstore.store import MemoryStore

from agents import AGENTS
from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Message, Topic
from deeplens_streams.broker.topology import COMPLETED, STATUS, TENANT_CHANGES, TENANTS
from deeplens_streams.circuit_breaker import Breakers
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.deletion import image as begun_deletions
from deeplens_streams.errors import (
    BrokerUnavailable,
    DependencyUnavailable,
    ImageNotFound,
    StorageUnavailable,
    VectorsUnavailable,
)
from deeplens_streams.pipeline.retry import Replay
from deeplens_streams.services import services_over
from deeplens_streams.storage import Blobs
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.tenancy.quotas import Quotas
from deeplens_streams.tenancy.registry import Registry
from deeplens_streams.testing.features import MemoryFeatures
from deeplens_streams.testing.vectors import MemoryVectors
from deeplens_streams.web import upload_acceptance
from deeplens_streams.web.app_keys import CONTEXT
from deeplens_streams.web.context import WebContext
from deeplens_streams.web.handlers import deletion
from deeplens_streams.web.middleware.auth import AUTHENTICATOR, CALLER, Authenticator, Caller
from models.images import StoredImage
from models.status import ImageRow
from models.tenants import Scope, Tenant, TenantChanged, Usage
from tables import image_status
from tables import tenants as tenants_table
from tests.support.photographs import as_jpeg, photograph
from tests.support.registered_agents import Stream, registered
from tests.support.stored_images import image as made_image
from tests.support.web_server import Feed, Pressure, Rows, Tables

TENANT = "acme-corp"
PICTURE = as_jpeg(photograph("coffee").data, pixels=20_000)
BROKEN = PICTURE[: len(PICTURE) // 2]


class Killed(BaseException):
    """The process is no more."""


class Fuse:
    """Kills behind the write of a number; counts all of them."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.writes = at, 0

    async def asked(self, unavailable: type[DependencyUnavailable]) -> None:
        """Something is about to be asked of a part; `unavailable` is what it may raise."""

    def written(self) -> None:
        self.writes += 1
        if self.writes == self.at:
            raise Killed


class FusedBlobs(Blobs):
    fuse: Fuse

    async def _put(self, write: Write) -> None:
        await self.fuse.asked(StorageUnavailable)
        await super()._put(write)
        self.fuse.written()

    async def swap(self, write: Write, *, old: bytes, action: str) -> bool:
        await self.fuse.asked(StorageUnavailable)
        swapped = await super().swap(write, old=old, action=action)
        self.fuse.written()
        return swapped

    async def copy(self, source: str, target: str, *, action: str) -> bool:
        await self.fuse.asked(StorageUnavailable)
        copied = await super().copy(source, target, action=action)
        self.fuse.written()
        return copied

    async def get(self, key: str, *, action: str) -> bytes | None:
        await self.fuse.asked(StorageUnavailable)
        return await super().get(key, action=action)

    async def size(self, key: str, *, action: str) -> int | None:
        await self.fuse.asked(StorageUnavailable)
        return await super().size(key, action=action)

    async def delete(self, key: str, *, action: str) -> None:
        await self.fuse.asked(StorageUnavailable)
        await super().delete(key, action=action)
        self.fuse.written()


class FusedVectors(MemoryVectors):
    fuse: Fuse

    async def upsert(self, *args: Any, **kwargs: Any) -> None:
        await self.fuse.asked(VectorsUnavailable)
        await super().upsert(*args, **kwargs)
        self.fuse.written()

    async def delete(self, *args: Any, **kwargs: Any) -> None:
        await self.fuse.asked(VectorsUnavailable)
        await super().delete(*args, **kwargs)
        self.fuse.written()


class Table(dict[bytes, Any]):
    """A table on this worker's disk, and its changelog, which whoever has it next recovers."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self.fuse = fuse
        self.changelog: dict[bytes, Any] = {}
        self._unsettled: set[bytes] = set()

    def __setitem__(self, key: bytes, value: Any) -> None:
        super().__setitem__(key, value)
        self._unsettled.add(key)
        self.fuse.written()

    def __delitem__(self, key: bytes) -> None:
        self._unsettled.add(key)
        super().__delitem__(key)
        self.fuse.written()

    async def settled(self) -> None:
        for key in sorted(self._unsettled):
            if key in self:
                self.changelog[key] = self[key]
            else:
                self.changelog.pop(key, None)
            self.fuse.written()
        self._unsettled.clear()

    def crash(self, *, moves: bool) -> None:
        self._unsettled.clear()
        if moves:
            self.clear()
            self.update(self.changelog)


@cache
def _settings() -> Settings:
    return load_settings(weights="untrained", tombstone_days=3650)


class System:
    """Everything durable, and a process over it that can be killed and started again.

    Parameters
    ----------
    moves : whether the tables go to another worker at a crash.
    """

    def __init__(self, fuse: Fuse, *, moves: bool = False) -> None:
        self.fuse, self.moves = fuse, moves
        self.blobs, self.vectors = FusedBlobs(MemoryStore()), FusedVectors()
        self.blobs.fuse = self.vectors.fuse = fuse
        self.table, self.tenants = Table(fuse), Table(fuse)
        self.log: dict[Topic, list[bytes]] = {}
        #: By topic: messages that are committed, and so the offset of the next one.
        self.read: dict[Topic, int] = {}
        self.completed: list[str] = []
        features, known = MemoryFeatures(), Breakers()
        self.services = services_over(
            known.guard(self.blobs, "storage"),
            # Its images may be of any day, and are not old for that.
            _settings(),
            model=features.model,
            features=features,
            vectors=known.guard(self.vectors, "vectors"),
            breakers=known,
        )
        self.registry = Registry(self._publish)
        self.registry.replace({})
        self.agents = registered(
            [module for modules in AGENTS.values() for module in modules],
            self.services,
            self,
            {image_status.NAME: self.table, tenants_table.NAME: self.tenants},
            self.registry,
        )
        self.context = WebContext(
            services=self.services,
            publish=self._publish,
            rows=self,  # type: ignore[arg-type] # what is used of it
            feed=Feed(),
            tables=Tables(Rows()),
            backlog=Pressure(),
            stream_checks=_no_checks,
            registry=self.registry,
            quotas=Quotas(self.services.settings, self.registry),
        )
        self.acceptance = upload_acceptance(self.context)

    # What stands for Kafka and the tables -------------------------------------------------

    async def send(self, *messages: Message) -> None:
        for message in messages:
            await self.fuse.asked(BrokerUnavailable)
            value = codec.encode(message.event)
            self.log.setdefault(message.topic, []).append(value)
            if message.topic is COMPLETED:
                self.completed.append(message.event.eventId)
            if message.topic is TENANTS:
                row = cast(TenantChanged, message.event).data
                self.registry.take(message.event.tenantId, None if message.is_tombstone else row)
            self.fuse.written()

    async def _publish(self, *messages: Message) -> None:
        """Send what a request has to say; it may wait for what becomes of a tenant."""
        await self.send(*messages)
        if any(message.topic is TENANT_CHANGES for message in messages):
            await self.work(TENANT_CHANGES)

    async def row(self, image_id: str) -> ImageRow | None:
        return self.table.get(image_id.encode())

    async def rows(self, image_ids: Any) -> dict[str, ImageRow]:
        return {each: row for each in image_ids if (row := await self.row(each))}

    async def work(self, *topics: Topic) -> None:
        """Have the agents of these topics read to the end, and commit."""
        for topic in topics:
            waiting = self.log.get(topic, [])
            values, begin = list(waiting), self.read.get(topic, 0)
            stream = Stream(values, begin)
            await self.agents[topic](stream)
            assert stream.acked == len(values)
            del waiting[: len(values)]
            self.read[topic] = begin + len(values)

    async def settle(self) -> None:
        """Work until nothing is left to do; a killed process is started again."""
        while any(self.log.get(topic) for topic in self.agents):
            try:
                await self.work(*self.agents)
            except Killed:
                self.restart()
        for topic in (STATUS, TENANTS):
            self.log.pop(topic, None)

    def restart(self) -> None:
        for table in (self.table, self.tenants):
            table.crash(moves=self.moves)

    # What clients do ----------------------------------------------------------------------

    async def upload(self, picture: bytes) -> StoredImage | None:
        """Upload; None if there was no answer."""
        image = made_image(self.services.storage)
        image.processingOptions.models = [self.services.model.name]
        try:
            return (await self.acceptance.accept(image, picture)).image
        except Killed:
            return None
        finally:  # what goes on behind the answer, which may be killed, too
            await self.acceptance.background.settled()

    async def delete(self, image_id: str, *, again: bool = True) -> None:
        """Delete, `again` until there is an answer."""
        path = f"/api/v1/images/{image_id}"
        await self._ask(deletion.delete, path, again=again, image_id=image_id)

    async def finish_deletions(self) -> None:
        """Do what workers do now and then, until nothing is left of it."""
        while True:
            try:
                if not await begun_deletions.finish(self.services, self._publish):
                    return
            except Killed:
                self.restart()

    async def delete_tenant(self) -> None:
        """Have the tenant deleted, again until there is an answer."""
        path = f"/api/v1/admin/tenants/{TENANT}?confirm={TENANT}"
        await self._ask(deletion.delete_tenant, path, tenant_id=TENANT)

    async def _ask(
        self,
        handler: Callable[[web.Request], Awaitable[web.Response]],
        path: str,
        *,
        again: bool = True,
        **parts: str,
    ) -> None:
        app = web.Application()
        app[CONTEXT], app[AUTHENTICATOR] = self.context, Authenticator(None, self.registry)
        while True:
            request = make_mocked_request("DELETE", path, match_info=parts, app=app)
            request[CALLER] = Caller(None, frozenset(Scope), "operator")
            try:
                # The purge does not run beside it here: an answer need not wait for it.
                with patch.object(deletion, "_PATIENCE_S", 0.0):
                    answer = await handler(request)
            except Killed:
                self.restart()
                if again:
                    continue
                return
            assert answer.status == 202
            return

    async def usage(self, tenant: str) -> Usage | None:
        row: Tenant | None = self.tenants.get(tenant.encode())
        return row and row.usage

    async def retry_all(self) -> None:
        while True:
            try:
                async for letter in self.services.letters.walk(tenant=TENANT):
                    if letter.state == "waiting":
                        replay = Replay(self.services, self, self.send, claim_s=0)
                        await replay.retry(letter, force=True)
            except (Killed, ImageNotFound):
                continue
            return


async def _no_checks() -> dict[str, Any]:
    return {}


async def ledger(system: System, image: StoredImage) -> dict[str, Any]:
    """Return everything that there is of an image, but times."""
    row = await system.row(image.imageId)
    model = system.services.model.name
    services, tenant = system.services, image.tenantId
    tombstone = await services.tombstones.find(image.imageId)
    vector = await system.vectors.get_vector(tenant=tenant, model=model, image_id=image.imageId)
    claim = await services.claims.find(tenant=tenant, checksum=image.checksumSha256)
    purge = await services.tombstones.find_purge(tenant=tenant)
    return {
        "row": row and (row.status, row.generation),
        "steps": row and sorted((step.step, step.status) for step in row.steps),
        "vector": vector is not None,
        "points": await system.vectors.count(tenant=tenant, model=model),
        "metadata": await services.storage.find(image.imageId) is not None,
        "original": await services.storage.size(tenant=tenant, key=image.originalKey) is not None,
        "thumbnail": await services.storage.size(tenant=tenant, key=image.thumbnailKey) is not None,
        "claim": claim is not None and claim.image_id == image.imageId,
        "purged": tombstone is not None and tombstone.completedAt is not None,
        "imagesDeleted": purge and purge.images,
        "begun": [each async for each, _ in services.tombstones.begun()],
        "letters": [letter.state async for letter in services.letters.walk(tenant=tenant)],
        "completed": len(set(system.completed)),
        "usage": usage.to_wire() if (usage := await system.usage(tenant)) else None,
        "recovers": all(each == each.changelog for each in (system.table, system.tenants)),
    }
