"""One suite for every `FeatureExtractor`: in memory, in this process, in a child, over HTTP."""

import asyncio
import io
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from PIL import Image

from deeplens_streams.config import Settings
from deeplens_streams.errors import (
    ExtractorUnavailable,
    TooManyPixels,
    UndecodableImage,
    UnsupportedFormat,
)
from deeplens_streams.extractor_service.app import build_app
from deeplens_streams.features import FeatureExtractor
from deeplens_streams.features.child.client import ChildFeatures
from deeplens_streams.features.in_process import LocalFeatures
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.features.remote.client import RemoteFeatures
from deeplens_streams.imaging.preprocessing import PREPROCESSING
from deeplens_streams.testing.features import MemoryFeatures
from tests.support.photographs import as_jpeg, cropped_copy, photograph, photographs

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = Settings(weights="untrained", max_pixels=3_000_000, log_format="json")


async def over_http() -> AsyncIterator[FeatureExtractor]:
    behind = MemoryFeatures(max_pixels=SETTINGS.max_pixels, model=UNTRAINED)
    async with TestServer(build_app(behind, SETTINGS)) as server:
        url = str(server.make_url("")).rstrip("/")
        yield RemoteFeatures(SETTINGS.model_copy(update={"extractor_url": (url,)}), UNTRAINED)


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["memory", "local", "child", "remote"]
)
async def features(request: pytest.FixtureRequest) -> AsyncIterator[FeatureExtractor]:
    extractor: FeatureExtractor
    server = None
    match request.param:
        case "memory":
            extractor = MemoryFeatures(max_pixels=SETTINGS.max_pixels)
        case "local":
            extractor = LocalFeatures(SETTINGS, UNTRAINED)
        case "child":
            extractor = ChildFeatures(SETTINGS, UNTRAINED)
        case _:
            server = over_http()
            extractor = await anext(server)
    await extractor.start()
    await extractor.ready()
    yield extractor
    await extractor.close()
    if server is not None:
        assert [each async for each in server] == []


async def test_it_says_when_it_can_answer(features: FeatureExtractor) -> None:
    await features.ping()


async def test_a_picture_becomes_a_vector_and_a_thumbnail(features: FeatureExtractor) -> None:
    found = await features.extract(photograph("china").data, thumbnail_px=256)
    assert found.vector.shape == (features.model.dimension,)
    assert found.vector.dtype == np.float32
    assert float(np.linalg.norm(found.vector)) == pytest.approx(1, abs=1e-5)
    assert (found.width, found.height, found.format) == (640, 427, "JPEG")
    assert found.processing_ms > 0
    assert found.preprocessing == PREPROCESSING
    with Image.open(io.BytesIO(found.thumbnail or b"")) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (256, 171))


async def test_no_thumbnail_unless_one_is_asked_for(features: FeatureExtractor) -> None:
    assert (await features.extract(photograph("china").data)).thumbnail is None


async def test_a_repeat_is_the_same_vector(features: FeatureExtractor) -> None:
    data = photograph("rocket").data
    calm, urgent = await features.extract(data), await features.extract(data, urgent=True)
    assert float(calm.vector @ urgent.vector) == pytest.approx(1, abs=1e-5)


async def test_most_copies_find_their_originals(features: FeatureExtractor) -> None:
    chosen = photographs()[::2]
    originals = await asyncio.gather(*(features.extract(each.data) for each in chosen))
    copies = await asyncio.gather(*(features.extract(cropped_copy(each.data)) for each in chosen))
    scores = np.stack([each.vector for each in copies]) @ np.stack(
        [each.vector for each in originals]
    ).T.astype(np.float32)
    assert (scores.argmax(axis=1) == np.arange(len(chosen))).mean() >= 0.7


async def test_bad_pictures_among_good_ones_fail_alone(features: FeatureExtractor) -> None:
    good = as_jpeg(photograph("coffee").data)
    sent = [good, good[: len(good) // 2], b"<svg/>", _large(), good]
    results = await asyncio.gather(*map(features.extract, sent), return_exceptions=True)
    errors = [UndecodableImage, UnsupportedFormat, TooManyPixels]
    assert [type(each) for each in results[1:4]] == errors
    assert "2,000 x 2,000" in str(results[3])
    for result in (results[0], results[4]):
        assert not isinstance(result, BaseException)


async def test_a_cancelled_caller_disturbs_nobody(features: FeatureExtractor) -> None:
    data = photograph("coffee").data
    tasks = [asyncio.create_task(features.extract(data)) for _ in range(6)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    assert all(each.vector.any() for each in await asyncio.gather(*tasks[1::2]))
    await asyncio.wait(tasks)


async def test_closed_is_closed_and_closing_twice_is_no_error() -> None:
    extractors: list[FeatureExtractor] = [
        LocalFeatures(SETTINGS, UNTRAINED),
        ChildFeatures(SETTINGS, UNTRAINED),
        RemoteFeatures(
            SETTINGS.model_copy(update={"extractor_url": ("http://127.0.0.1:9",)}), UNTRAINED
        ),
    ]
    for extractor in extractors:
        await extractor.close()
        await extractor.close()
        with pytest.raises(ExtractorUnavailable):
            await extractor.extract(photograph("coffee").data)
        with pytest.raises(ExtractorUnavailable):
            await extractor.ping()


def _large() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (2000, 2000)).save(buffer, "PNG")
    return buffer.getvalue()
