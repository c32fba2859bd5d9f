"""Five thousand damaged and hostile pictures, through HTTP, the stages and the decoding process."""

import asyncio
import io
import os
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from deeplens_streams.config import Settings, load_settings
from deeplens_streams.features import choose_model
from deeplens_streams.features.child.client import ChildFeatures
from deeplens_streams.services import Services, services_over
from deeplens_streams.storage import open_blobs
from deeplens_streams.testing.vectors import MemoryVectors
from tests.support.damaged_images import MAX_PIXELS, REFUSED, RESOLVED, Mutant, mutants, originals
from tests.support.pipeline_in_process import end_of
from tests.support.web_process import started
from tests.support.web_server import TENANT, UPLOAD

COUNT = 5_000
AT_ONCE = 8
#: Above idle; with the lowered limit of pixels one run took 57 MB.
LIMIT_BYTES = 150_000_000


@pytest.fixture
def web_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with started(tmp_path, MAX_PIXELS) as found:
        yield found


class Processes:
    """The memory of the process that reads pictures and of the one that decodes them, together."""

    def __init__(self, *ids: int) -> None:
        self._watched = [psutil.Process(each) for each in ids]
        self.idle = self.peak = self.used

    @property
    def used(self) -> tuple[int, ...]:
        return tuple(each.memory_info().rss for each in self._watched)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        async def look() -> None:
            while True:
                self.peak = max(self.peak, self.used, key=sum)
                await asyncio.sleep(0.01)

        task = asyncio.create_task(look())
        try:
            yield
        finally:
            task.cancel()


def services_of(settings: Settings, features: ChildFeatures) -> Services:
    """Return what the stages need, over the folder that the web process stores pictures in."""
    blobs = open_blobs(settings)
    return services_over(
        blobs, settings, model=features.model, features=features, vectors=MemoryVectors()
    )


async def fate(client: aiohttp.ClientSession, url: str, services: Services, mutant: Mutant) -> str:
    """Return why a picture was refused, or to which end the stages brought it."""
    form = {"tenantId": TENANT, "skipDuplicateCheck": "true", "file": io.BytesIO(mutant.data)}
    async with client.post(url, data=form) as response:
        answer: dict[str, Any] = await response.json()
    if response.status != 202:
        assert (response.status, answer["errorCode"]) in REFUSED, answer
        return f"refused, {answer['errorCode']}"
    image = await services.storage.find(answer["imageId"])
    assert image is not None
    end = await end_of(image, services)
    assert end in RESOLVED, end
    return end


@pytest.mark.faults
@pytest.mark.timeout(1800)
async def test_five_thousand_mutants(web_process: subprocess.Popen[str], tmp_path: Path) -> None:
    seed = int(os.environ.get("DEEPLENS_TEST_SEED") or 2026)
    print(f"seed {seed}")  # noqa: T201 -- a failure is run again by its seed
    settings = load_settings(data_dir=tmp_path, weights="untrained", max_pixels=MAX_PIXELS)
    features = ChildFeatures(settings, choose_model(settings))
    services = services_of(settings, features)
    assert web_process.stdout is not None
    port = int(await asyncio.to_thread(web_process.stdout.readline))
    url, fates, turns = (
        f"http://127.0.0.1:{port}{UPLOAD}",
        Counter[str](),
        asyncio.Semaphore(AT_ONCE),
    )
    await features.ready()
    child = features.process_id
    assert child is not None
    try:
        async with aiohttp.ClientSession() as client:
            whole = [Mutant("whole", each) for each in originals()]
            await asyncio.gather(*(fate(client, url, services, each) for each in whole))
            processes = Processes(web_process.pid, child)

            async def one(number: int, mutant: Mutant) -> None:
                try:
                    fates[await fate(client, url, services, mutant)] += 1
                except Exception as error:
                    raise AssertionError(f"number {number}: {mutant.kind}: {error}") from error
                finally:
                    turns.release()

            async with processes.watched(), asyncio.TaskGroup() as group:
                for each in enumerate(mutants(seed, COUNT)):
                    await turns.acquire()
                    group.create_task(one(*each))
    finally:
        same = features.process_id == child
        await features.close()
    grown = [peak - idle for peak, idle in zip(processes.peak, processes.idle, strict=True)]
    print(f"{dict(fates)}; above idle, in bytes: {grown}")  # noqa: T201
    assert same, "the decoding process ended"
    assert web_process.poll() is None
    assert fates.total() == COUNT
    assert sum(grown) < LIMIT_BYTES
