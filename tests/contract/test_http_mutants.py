"""Three hundred damaged and hostile pictures; five thousand of them are in tests/hostile."""

import asyncio
import io
import os
from collections import Counter
from pathlib import Path

from deeplens_streams.errors import DeepLensError
from deeplens_streams.testing.features import MemoryFeatures
from tests.support.damaged_images import MAX_PIXELS, REFUSED, RESOLVED, Mutant, mutants
from tests.support.pipeline_in_process import end_of
from tests.support.web_server import TENANT, UPLOAD, Web, running

COUNT = 300


async def fate(served: Web, mutant: Mutant) -> str:
    """Return why a picture was refused, or to which end the stages brought it."""
    form = {"tenantId": TENANT, "skipDuplicateCheck": "true", "file": io.BytesIO(mutant.data)}
    async with served.client.post(UPLOAD, data=form) as response:
        answer = await response.json()
    if response.status != 202:
        assert (response.status, answer["errorCode"]) in REFUSED, (mutant.kind, answer)
        return f"refused, {answer['errorCode']}"
    image = await served.storage.find(answer["imageId"])
    assert image is not None
    end = await end_of(image, served.services)
    assert end in RESOLVED, (mutant.kind, end)
    return end


async def test_mutants_are_resolved_or_refused(tmp_path: Path) -> None:
    seed = int(os.environ.get("DEEPLENS_TEST_SEED") or 20)
    fates: Counter[str] = Counter()
    features = MemoryFeatures(max_pixels=MAX_PIXELS)
    async with running(tmp_path, features=features, max_pixels=MAX_PIXELS) as served:
        turns = asyncio.Semaphore(8)

        async def one(number: int, mutant: Mutant) -> None:
            async with turns:
                try:
                    fates[await fate(served, mutant)] += 1
                except (AssertionError, DeepLensError) as error:
                    raise AssertionError(f"seed {seed}, number {number}: {mutant.kind}") from error

        pictures = enumerate(mutants(seed, COUNT))
        await asyncio.gather(*(one(*each) for each in pictures))
    print(f"seed {seed}: {dict(fates)}")  # noqa: T201 -- a failure is run again by its seed
    assert fates.total() == COUNT
    # Otherwise the pictures would not reach what is tested.
    assert len(fates) >= 5
    assert fates["completed"] > COUNT / 10
