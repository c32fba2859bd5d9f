"""A crash behind each durable write, one after the other: the ledger is the same.

The whole pipeline runs here on parts in memory: the agents with their own stages, the handlers of
deletions, and a log of messages of which offsets are committed as Kafka's are, now and then, so
that what was worked on since comes again. A crash loses everything but what was written.
"""

from collections.abc import Awaitable, Callable

import pytest

from deeplens_streams.pipeline import attempts
from models.events import RetryPolicy
from models.images import StoredImage
from tests.support.killed_systems import BROKEN, PICTURE, Fuse, System, ledger


async def completes(system: System) -> StoredImage | None:
    image = await system.upload(PICTURE)
    await system.settle()
    return image


async def fails_and_is_retried(system: System) -> StoredImage | None:
    image = await system.upload(BROKEN)
    await system.settle()
    await system.retry_all()
    await system.settle()
    return image


async def is_deleted(system: System) -> StoredImage | None:
    image = await completes(system)
    if image is not None:
        await system.delete(image.imageId)
        await system.settle()
    return image


async def is_deleted_on_its_way(system: System) -> StoredImage | None:
    image = await system.upload(PICTURE)
    if image is not None:
        await system.delete(image.imageId)
    await system.settle()
    return image


async def is_deleted_by_who_does_not_ask_again(system: System) -> StoredImage | None:
    image = await completes(system)
    if image is not None:
        await system.delete(image.imageId, again=False)
        await system.finish_deletions()
        await system.settle()
    return image


async def goes_with_its_tenant(system: System) -> StoredImage | None:
    image = await completes(system)
    if image is not None:
        await system.delete_tenant()
        await system.settle()
    return image


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "POLICY", RetryPolicy(backoffMs=1))


Story = Callable[[System], Awaitable[StoredImage | None]]


@pytest.mark.parametrize(
    ("story", "status", "images"),
    [
        (completes, "completed", 1),
        (fails_and_is_retried, "failed", 1),
        (is_deleted, "deleted", 0),
        (is_deleted_on_its_way, "deleted", None),
        (is_deleted_by_who_does_not_ask_again, "deleted", 0),
        (goes_with_its_tenant, None, None),
    ],
)
@pytest.mark.parametrize("moves", [False, True], ids=["stays", "moves"])
async def test_the_ledger_is_the_same_wherever_it_was_killed(
    story: Story, status: str | None, images: int | None, moves: bool
) -> None:
    whole = System(Fuse())
    image = await story(whole)
    assert image is not None
    expected = await ledger(whole, image)
    assert (expected["row"] and expected["row"][0]) == status
    assert (expected["usage"] and expected["usage"]["images"]) == images
    assert expected["recovers"]
    assert whole.fuse.writes > 10
    unanswered = 0
    for at in range(1, whole.fuse.writes + 1):
        system = System(Fuse(at), moves=moves)
        image = await story(system)
        if image is None:
            # Killed within the upload: nobody was promised anything, and another try succeeds.
            unanswered += 1
            image = await story(system)
            assert image is not None
            found = await ledger(system, image)
            assert found["row"] == expected["row"], at
            assert found["purged"] == expected["purged"], at
            continue
        assert await ledger(system, image) == expected, f"killed behind write {at}"
    # claim, bytes, pointer, metadata object, event; the confirmation is behind the answer
    assert unanswered == 5
