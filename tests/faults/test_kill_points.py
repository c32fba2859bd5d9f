"""A worker dies behind each of its durable writes, one after the other: the ledger is the same.

Kafka, the folder of images, the tables and the vector engine are real; `crashing` has the worker
kill itself. Each death has a picture and a tenant of its own, and every second one takes the
worker's state folder along. Halves of a story are tests of their own, to run beside each other.
"""

import os
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest

from deeplens_streams.broker import codec
from deeplens_streams.broker.topology import COMPLETED
from models.events import ProcessingCompleted
from tests.faults.crashing import Fuse, Point
from tests.faults.persistent_client import PATIENCE_S, PersistentClient
from tests.support.fault_injection import StubExtractor, cut_short, small_pictures
from tests.support.pipeline import read_all
from tests.support.system import System, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

PICTURE = small_pictures(1)[0]
BROKEN = cut_short(PICTURE)
#: Whose story has no death.
WHOLE = "whole"
#: Seconds without a write after which none comes; offsets are committed each second.
QUIET_S = 2.5
#: How many of these there are depends on what happens together.
BUNCHED = ("changelog of", "kafka: deeplens.images.status")
OFFSETS = "kafka: offsets of"
#: Where an upload was not answered, there may be two pictures: it is not certain that it died.
OF_TENANT = {"vectors", "usage"}
#: What else it may leave, and an audit mends; a pointer, that of all tenants.
LEFT_BEHIND = {"stuck", "file_orphaned", "claim_orphaned", "write_unfinished"}
POINTER = "pointer_orphaned"
#: Files that are written together are all on the disk before the first gets its name: who is killed
#: behind that leaves the others under none.
HALF_WRITTEN = "write_unfinished"


@dataclass
class Scene:
    """What a story is played with."""

    client: PersistentClient
    fuse: Fuse
    stub: StubExtractor

    def signal_stub(self, signum: int) -> None:
        assert self.stub.process is not None
        os.kill(self.stub.process.pid, signum)

    async def until_quiet(self, *, or_killed: bool = False) -> None:
        """Wait until nothing was written for a while."""
        size, since = -1, 0.0

        async def is_quiet() -> bool:
            nonlocal size, since
            if self.fuse.size() != size:
                size, since = self.fuse.size(), time.monotonic()
            is_killed = or_killed and not self.fuse.is_armed
            return is_killed or time.monotonic() - since > QUIET_S

        await until(is_quiet, "nothing is written any more", seconds=PATIENCE_S)


# Stories: each returns the image that it is about ------------------------------------------


async def nothing(_scene: Scene, _tenant: str) -> str:
    return ""


async def complete(scene: Scene, tenant: str, _image_id: str = "") -> str:
    image_id = await scene.client.upload(tenant, PICTURE)
    await scene.client.until_final(image_id)
    return image_id


async def fail_and_retry(scene: Scene, tenant: str, _image_id: str) -> str:
    image_id = await scene.client.upload(tenant, BROKEN)
    await scene.client.until_final(image_id)
    await scene.client.retry(tenant)
    return image_id


async def delete(scene: Scene, _tenant: str, image_id: str) -> str:
    await scene.client.delete(image_id)
    return image_id


async def be_on_its_way(scene: Scene, tenant: str) -> str:
    """Have a picture wait for the extraction service."""
    scene.signal_stub(signal.SIGSTOP)
    image_id = await scene.client.upload(tenant, PICTURE)
    await scene.client.until_step(image_id, "image_processing")
    return image_id


async def delete_on_its_way(scene: Scene, _tenant: str, image_id: str) -> str:
    await scene.client.once("DELETE", f"/api/v1/images/{image_id}")
    scene.signal_stub(signal.SIGCONT)
    await scene.client.delete(image_id)
    return image_id


async def delete_tenant(scene: Scene, tenant: str, image_id: str) -> str:
    await scene.client.delete_tenant(tenant)
    return image_id


@dataclass(frozen=True)
class Story:
    """What happens to a picture.

    Attributes
    ----------
    status : of the picture in the end.
    completed : how often it is announced as completed.
    before : what happens before a death can.
    first : the first write to be killed behind; those before it are another story's.
    """

    name: str
    act: Callable[[Scene, str, str], Awaitable[str]]
    status: str | None
    completed: int
    before: Callable[[Scene, str], Awaitable[str]] = nothing
    first: str = ""


STORIES = (
    Story("completes", complete, "completed", 1),
    Story("fails", fail_and_retry, "failed", 0, first="kafka: deeplens.processing.failed"),
    Story("is-deleted", delete, "deleted", 1, before=complete),
    Story("is-deleted-on-its-way", delete_on_its_way, "deleted", 0, before=be_on_its_way),
    Story("goes-with-its-tenant", delete_tenant, None, 1, before=complete),
)


async def play_whole(scene: Scene, story: Story) -> tuple[str, list[Point]]:
    """Play a story without a death; return its image, and every write to be killed behind."""
    image_id = await story.before(scene, WHOLE)
    await scene.until_quiet()
    begin = scene.fuse.size()
    image_id = await story.act(scene, WHOLE, image_id)
    await scene.until_quiet()
    writes = scene.fuse.writes(WHOLE, begin)
    names = [each.what for each in writes]
    points = writes[names.index(story.first) if story.first else 0 :]
    # Offsets are committed each second, of what was read by then.
    return image_id, [
        each for each in points if not (each.what.startswith(OFFSETS) and each.nth > 1)
    ]


async def play(scene: Scene, story: Story, point: Point) -> tuple[str, bool]:
    """Play a story with a death at `point`; return its image, and whether it came to that."""
    image_id = await story.before(scene, point.tenant)
    scene.fuse.arm(point)
    image_id = await story.act(scene, point.tenant, image_id)
    await scene.until_quiet(or_killed=True)
    has_died = not scene.fuse.is_armed
    scene.fuse.disarm()
    return image_id, has_died


async def until_equal(
    client: PersistentClient, tenant: str, image_id: str, expected: dict[str, Any], why: str
) -> None:
    """Wait until the ledger is as expected; fail with `why` and the difference."""
    found: dict[str, Any] = {}
    if tenant in client.cut:
        expected = {name: what for name, what in expected.items() if name not in OF_TENANT}

    deadline = time.monotonic() + PATIENCE_S
    while found != expected and time.monotonic() < deadline:
        ledger = await client.ledger(tenant, image_id)
        found = {name: ledger[name] for name in expected}
    assert found == expected, why


@pytest.fixture
async def scene(system: System, stub: StubExtractor) -> AsyncIterator[Scene]:
    folder = system.folder / "fuse"
    folder.mkdir()
    worker = system.worker()
    worker._args = ["tests.faults.crashing", str(folder), "worker", "-l", "info"]
    worker.start()
    await worker.until_ready(120)
    async with aiohttp.ClientSession(worker.url) as http:
        yield Scene(PersistentClient(worker, http), Fuse(folder), stub)


@pytest.mark.parametrize("half", range(2))
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_the_ledger_is_the_same_wherever_a_worker_was_killed(
    scene: Scene, system: System, story: Story, half: int
) -> None:
    client, began = scene.client, time.monotonic()
    image_id, points = await play_whole(scene, story)
    expected = await client.ledger(WHOLE, image_id)
    assert expected["status"] == story.status
    images, spared = {WHOLE: image_id}, []
    for number, point in enumerate(points[half::2]):
        dying = replace(point, tenant=f"death-{number:02d}", loses_state=number % 2 == 1)
        image_id, has_died = await play(scene, story, dying)
        if not has_died:
            spared.append(point.what)
        images[dying.tenant] = image_id
        await until_equal(client, dying.tenant, image_id, expected, str(dying))
    print(  # noqa: T201 - what makes the figures of a run
        f"{story.name}: {number + 1} of {len(points)} points, {len(spared)} not reached, "
        f"{len(client.cut)} uploads without an answer, {time.monotonic() - began:.0f} s"
    )
    assert all(each.startswith(BUNCHED) for each in spared), spared

    # What each death left behind, and whether it stays as it was.
    for tenant in client.cut:
        await client.until_all_read()
        for finding in (await client.audit(tenantId=tenant, repair="true"))["finding"]:
            assert finding["fault"] in LEFT_BEHIND, finding
    await client.until_all_read()
    for finding in (await client.audit(repair="true"))["finding"]:
        is_pointer = finding["fault"] == POINTER and finding["tenantId"] in client.cut
        assert is_pointer or finding["fault"] == HALF_WRITTEN, finding
    await until_audited(client)
    for tenant, image_id in images.items():
        if tenant not in client.cut:
            assert await client.ledger(tenant, image_id) == expected, tenant
    announced = defaultdict(set)
    for message in await read_all(system, COMPLETED):
        event = codec.decode(ProcessingCompleted, message.value)
        announced[event.data.imageId].add(event.eventId)
    assert {len(announced[each]) for each in images.values()} == {story.completed}


async def until_audited(client: PersistentClient) -> None:
    """Wait until an audit finds nothing, and every picture at its end."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        await client.until_all_read()
        lines = await client.audit()
        (total,) = lines["total"]
        if total["balanced"] and not total["faults"] and not total["inFlight"]:
            return
        assert time.monotonic() < deadline, lines
