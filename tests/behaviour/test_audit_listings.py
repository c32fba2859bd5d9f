"""However many metadata objects are lost, an audit lists a tenant's so often and no more."""

from collections import Counter
from collections.abc import AsyncGenerator

import pytest

from deeplens_streams.audit import kept_objects, pointers, settled
from deeplens_streams.storage.image_objects import metadata_key_of
from tests.support.damaged_systems import KINDS, ManyImages
from tests.support.killed_systems import FusedBlobs

#: Parts that are looked at together.
_TOGETHER = 5


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Listings by what they list; as if a few parts were many."""
    found, walk = Counter[str](), FusedBlobs.walk

    async def counted(self: FusedBlobs, path: str, *, action: str) -> AsyncGenerator[str]:
        for kind, folder in KINDS.items():
            found[kind] += f"{path}/".startswith(f"{folder}/")
        async for key in walk(self, path, action=action):
            yield key

    monkeypatch.setattr(FusedBlobs, "walk", counted)
    for module in (kept_objects, pointers):
        monkeypatch.setattr(module, "COLLECTED", _TOGETHER)
    monkeypatch.setattr(settled, "GRACE_S", -1.0)
    return found


async def lost(count: int) -> ManyImages:
    """Return a system whose metadata objects are all lost; every second has no pointer, either."""
    system = ManyImages()
    await system.build(count)
    for number, image in enumerate(system.images.values()):
        await system.blobs.delete(metadata_key_of(image), action="lose")
        if number % 2:
            await system.blobs.delete(f"index/{image.imageId[4:]}", action="lose")
        if number % 3:
            system.table.pop(image.imageId.encode(), None)
    return system


@pytest.mark.parametrize("repair", [False, True])
async def test_a_tenant_is_listed_as_often_for_many_as_for_few(
    listed: Counter[str], repair: bool
) -> None:
    counts = []
    for count in (10, 80):
        system = await lost(count)
        listed.clear()
        said = await system.audit(repair=repair, settle=False)
        assert said.total["accepted"] == count
        assert sum(each["fault"] == "metadata_missing" for each in said.findings) >= count // 2
        counts.append({kind: listed[kind] for kind in ("metadata", "tombstone", "claim")})
    assert counts[0] == counts[1]
