"""Pictures that take more memory than their process may have: they fail, and nobody else does."""

import asyncio
import io
import re
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image

from deeplens_streams.config import Settings
from deeplens_streams.errors import UndecodableImage
from deeplens_streams.features.child import client as child_module
from deeplens_streams.features.child.client import ChildFeatures
from deeplens_streams.features.models import UNTRAINED
from tests.model.hostile_features import a_vector, letter_of, over_http
from tests.model.hostile_process import FULL, GREEDY, HEAVY, HEAVY_ONCE, MUTE, NEEDY, picture
from tests.support.photographs import photograph
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such limits")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_RESTART_WAIT_S", 0.01)


@asynccontextmanager
async def loaded(program: str = "hostile_process") -> AsyncIterator[ChildFeatures]:
    """Yield the model in a process that runs `program` and is ready."""
    settings = Settings(weights="untrained", log_format="json", threads=2)
    features = ChildFeatures(settings, UNTRAINED, program=f"tests.model.{program}")
    try:
        await features.ready()
        yield features
    finally:
        await features.close()


def left(features: ChildFeatures) -> int:
    """Return how many bytes the process may still map."""
    assert features.process_id is not None
    status = Path(f"/proc/{features.process_id}/status").read_text()
    found = re.search(r"VmData:\s+(\d+) kB", status)
    assert found is not None
    return resource.prlimit(features.process_id, resource.RLIMIT_DATA)[0] - int(found[1]) * 1024


@pytest.mark.parametrize("kind", [NEEDY, MUTE])
async def test_who_finds_no_memory_beside_a_greedy_picture_comes_through(kind: bytes) -> None:
    async with loaded() as features:
        pid = features.process_id
        greedy = asyncio.create_task(features.extract(picture(GREEDY)))
        await until(lambda: left(features) < 10_000_000)
        async with asyncio.timeout(60):
            found = await asyncio.gather(
                *(features.extract(picture(kind, each)) for each in range(4))
            )
            with pytest.raises(UndecodableImage, match="more memory"):
                await greedy
        assert [each.vector.shape for each in found] == [(2048,)] * 4
        assert features.process_id != pid
        again = features.process_id
        with pytest.raises(UndecodableImage, match="more memory"):
            await features.extract(picture(GREEDY))
        await a_vector(features, 0)
        assert features.process_id == again


async def test_a_picture_without_memory_is_a_dead_letter_of_a_service_that_goes_on() -> None:
    """And no second service has to find it out."""
    async with loaded() as behind, over_http(behind) as (remote, statuses):
        (letter,), _ = await letter_of(remote, picture(FULL))
        assert letter.data.errorCode == "UNDECODABLE_IMAGE"
        assert "more memory" in letter.data.errorMessage
        assert statuses.count(400) == 1
        await a_vector(remote, 0)


async def test_a_picture_that_the_network_has_no_memory_for_is_no_model_that_is_away() -> None:
    async with loaded() as features:
        others = [asyncio.create_task(a_vector(features, each)) for each in range(8)]
        (letter,), _ = await letter_of(features, picture(HEAVY))
        assert letter.data.errorCode == "UNDECODABLE_IMAGE"
        await asyncio.gather(*others)


async def test_a_network_that_found_no_memory_is_asked_again_when_nothing_is_decoded() -> None:
    async with loaded() as features:
        pid = features.process_id
        assert (await features.extract(picture(HEAVY_ONCE))).vector.shape == (2048,)
        assert features.process_id == pid


async def test_a_real_picture_that_its_container_has_no_room_for_fails_alone() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (7000, 7000)).save(buffer, "PNG", compress_level=1)
    async with loaded("limited_process") as features:
        large = asyncio.create_task(features.extract(buffer.getvalue()))
        small = [photograph(name).data for name in ("coffee", "china", "rocket", "chelsea")] * 3
        found = await asyncio.gather(*(features.extract(each, thumbnail_px=256) for each in small))
        assert {each.vector.shape for each in found} == {(2048,)}
        with pytest.raises(UndecodableImage, match="more memory"):
            await large
        await features.extract(small[0])
