"""A picture, or its tenant, is deleted while a stage is at work on it: nothing is left of it.

The whole deletion happens before any one thing that extraction or indexing asks of storage, of the
vector engine or of Kafka. Then the stage goes on, or the process dies, or something is away for a
moment, so that the stage begins again when the purge does not come again.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from itertools import count

import pytest

from deeplens_streams.broker.topology import (
    DELETED,
    EXTRACTION,
    INDEXING,
    PROGRESS,
    TENANT_CHANGES,
    UPLOADED,
)
from deeplens_streams.circuit_breaker import breaker as circuit_breaker
from deeplens_streams.errors import DependencyUnavailable
from models.images import StoredImage
from tests.support.killed_systems import PICTURE, Fuse, Killed, System, ledger

STAGES = (EXTRACTION, INDEXING)


class Hiccup(Enum):
    """What happens besides, at one thing that a stage asks for."""

    NONE = "nothing"
    KILLED_BEFORE = "killed before"
    KILLED_BEHIND = "killed behind"
    AWAY = "away"


@dataclass
class Meddler(Fuse):
    """Numbers what the stages ask for, and meddles with it.

    Attributes
    ----------
    deletes_at : before what the deletion happens.
    hiccup, hiccups_at : what happens besides, and at what.
    """

    deletes_at: int
    hiccup: Hiccup = Hiccup.NONE
    hiccups_at: int | None = None
    number: int = 0
    watches: bool = False
    deletion: Callable[[], Awaitable[None]] = field(init=False)

    async def asked(self, unavailable: type[DependencyUnavailable]) -> None:
        if not self.watches:
            return
        self.number += 1
        if self.number == self.deletes_at:
            self.watches = False
            await self.deletion()
            self.watches = True
        if self.number == self.hiccups_at:
            if self.hiccup is Hiccup.KILLED_BEFORE:
                raise Killed
            if self.hiccup is Hiccup.AWAY:
                raise unavailable

    def written(self) -> None:
        if self.watches and (self.number, self.hiccup) == (self.hiccups_at, Hiccup.KILLED_BEHIND):
            self.hiccups_at = None
            raise Killed


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "FIRST_WAIT_S", 0.001)


async def run(meddler: Meddler, deletion: "Deletion") -> tuple[System, StoredImage]:
    """Bring a picture through the stages, meddled with, and to its end."""
    system = System(meddler)
    image = await system.upload(PICTURE)
    assert image is not None
    await system.work(UPLOADED, PROGRESS, TENANT_CHANGES)
    meddler.deletion = lambda: deletion(system, image)
    meddler.watches = True
    while any(system.log.get(topic) for topic in STAGES):
        try:
            await system.work(*STAGES)
        except Killed:
            system.restart()
    meddler.watches = False
    await system.settle()
    return system, image


async def of_the_picture(system: System, image: StoredImage) -> None:
    await system.delete(image.imageId)
    await system.work(DELETED, PROGRESS, TENANT_CHANGES)


async def of_the_tenant(system: System, _image: StoredImage) -> None:
    await system.delete_tenant()
    await system.work(DELETED, PROGRESS, TENANT_CHANGES)


Deletion = Callable[[System, StoredImage], Awaitable[None]]


@pytest.mark.parametrize("deletion", [of_the_picture, of_the_tenant])
@pytest.mark.parametrize("hiccup", Hiccup)
async def test_nothing_is_left(deletion: Deletion, hiccup: Hiccup) -> None:
    quiet = Meddler(deletes_at=0)
    await run(quiet, deletion)
    # metadata, bytes, thumbnail, a look, two messages; metadata, point, a look, message
    assert quiet.number == 10
    for deletes_at in range(1, quiet.number + 1):
        for hiccups_at in count(deletes_at):
            meddler = Meddler(deletes_at, hiccup, hiccups_at)
            system, image = await run(meddler, deletion)
            about = f"deleted before {deletes_at}, {hiccup.value} at {hiccups_at}"
            found = await ledger(system, image)
            parts = ("vector", "thumbnail", "original", "metadata", "claim", "letters")
            assert [part for part in parts if found[part]] == [], about
            assert found["points"] == 0, about
            assert found["row"] is None or found["row"][0] == "deleted", about
            assert found["usage"] is None or found["usage"]["images"] == 0, about
            assert found["recovers"], about
            if deletion is of_the_picture:
                assert found["row"] is not None, about
                assert found["purged"], about
            if hiccup is Hiccup.NONE or hiccups_at >= meddler.number:
                break
