"""Where an image's row, claim and metadata are lost, a damaged original is not taken as whole."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestServer

from deeplens_streams.audit import settled
from deeplens_streams.errors import ExtractorUnavailable
from deeplens_streams.storage import image_objects, object_keys
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.vectors import VectorPoint
from deeplens_streams.web.app_keys import CONTEXT
from models.images import StoredImage
from tests.support.audits import PICTURE, audited, remove, stored
from tests.support.web_server import TENANT, Web, running, until

HALVED = PICTURE[: len(PICTURE) // 2]
#: As many bytes, and it can be decoded.
OTHER = PICTURE[:-9] + b"\0" + PICTURE[-8:]


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Web]:
    monkeypatch.setattr(settled, "GRACE_S", -1.0)
    async with running(tmp_path) as found:
        yield found


async def lost(
    served: Web, *, row: bool = False, claim: bool = False, says_bytes: bool = False
) -> StoredImage:
    """Return an image whose metadata object is lost, and what else is not to be there.

    Parameters
    ----------
    says_bytes : its vector says size and checksum; those of earlier versions do not.
    """
    answer = await served.upload(PICTURE)
    await served.index(answer["imageId"])
    await until(lambda: served.acceptance.background.idle)
    image = await stored(served, answer["imageId"])
    if not says_bytes:
        await forget_bytes(served, image)
    if not row:
        del served.rows.held[image.imageId]
    if not claim:
        await remove(served, object_keys.claim_key(tenant=TENANT, checksum=image.checksumSha256))
    await remove(served, image_objects.metadata_key_of(image))
    served.sent.clear()
    return image


async def forget_bytes(served: Web, image: StoredImage) -> None:
    assert served.vectors is not None
    place = {"tenant": TENANT, "model": served.model.name}
    point = await served.vectors.get_point(**place, image_id=image.imageId)
    assert point is not None
    payload = {
        key: value
        for key, value in point.payload.items()
        if key not in ("fileSize", "checksumSha256")
    }
    await served.vectors.upsert([VectorPoint(image.imageId, point.vector, payload)], **place)


async def hurt(served: Web, image: StoredImage, data: bytes) -> None:
    await served.blobs.put(Write(image.originalKey, data), action="damage")


async def repaired(served: Web) -> dict[str, Any]:
    """Return what a repair says of the image's metadata object."""
    findings, total = await audited(served, "repair=true")
    assert total["accepted"] == 1
    (finding,) = [each for each in findings if each["fault"] == "metadata_missing"]
    return finding


async def stays(served: Web, image: StoredImage, data: bytes, said: str) -> None:
    """Check that a repair makes nothing of the damaged original, and removes nothing of it."""
    for _ in range(2):
        finding = await repaired(served)
        assert (finding["imageId"], finding["repaired"]) == (image.imageId, False)
        assert said in finding["detail"]
    assert await served.blobs.get(image.originalKey, action="look") == data
    assert await served.storage.find(image.imageId) is None
    assert served.sent == []


@pytest.mark.parametrize("data", [HALVED, OTHER], ids=["halved", "other"])
@pytest.mark.parametrize("row", [False, True])
async def test_a_vector_tells_what_the_bytes_were(served: Web, data: bytes, row: bool) -> None:
    image = await lost(served, row=row, says_bytes=True)
    await hurt(served, image, data)
    await stays(served, image, data, "its vector is of other bytes")
    await hurt(served, image, PICTURE)
    finding = await repaired(served)
    assert finding["repaired"] is True
    assert "whole" not in finding["detail"]
    assert (await stored(served, image.imageId)).checksumSha256 == image.checksumSha256


@pytest.mark.parametrize("data", [HALVED, OTHER], ids=["halved", "other"])
@pytest.mark.parametrize("row", [False, True])
async def test_a_claim_of_other_bytes_tells_that_these_are_damaged(
    served: Web, data: bytes, row: bool
) -> None:
    image = await lost(served, row=row, claim=True)
    await hurt(served, image, data)
    await stays(served, image, data, "it has claimed other bytes")


async def test_a_row_tells_how_many_bytes_there_were(served: Web) -> None:
    image = await lost(served, row=True)
    await hurt(served, image, HALVED)
    await stays(served, image, HALVED, f"it has {len(HALVED)} of {len(PICTURE)} bytes")


async def test_what_ends_early_by_its_own_format_is_not_whole(served: Web) -> None:
    image = await lost(served)
    await hurt(served, image, HALVED)
    await stays(served, image, HALVED, "cannot be decoded")


async def test_what_cannot_be_known_is_said(served: Web) -> None:
    """It can be decoded; whether it is what was uploaded, nobody can tell."""
    image = await lost(served)
    finding = await repaired(served)
    assert finding["repaired"] is True
    assert "that its original can be decoded is all that tells" in finding["detail"]
    assert (await stored(served, image.imageId)).checksumSha256 == image.checksumSha256
    assert served.sent != []


async def test_a_model_that_is_away_is_waited_for(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await lost(served)

    async def away(*_: Any, **__: Any) -> None:
        raise ExtractorUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(type(served.features), "extract", away)
        await stays(served, image, PICTURE, "repair again when it does")
    assert (await repaired(served))["repaired"] is True


async def test_without_a_model_the_pipeline_is_the_judge(served: Web) -> None:
    image = await lost(served)
    await hurt(served, image, HALVED)
    context = cast(TestServer, served.client.server).app[CONTEXT]
    # As of a worker that has none.
    object.__setattr__(context, "services", replace(served.services, features=None))
    finding = await repaired(served)
    assert finding["repaired"] is True
    assert "nothing tells whether its original is whole" in finding["detail"]
    assert await served.blobs.get(image.originalKey, action="look") == HALVED
    assert served.sent != []


async def test_a_metadata_object_that_is_brought_back_meanwhile_stays(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await lost(served, row=True, claim=True)
    image.tags = {"brought": "back"}
    inventory = type(served.context.services.inventory)
    point = inventory.point

    async def brought_back(self: Any, image_id: str, **said: Any) -> None:
        await point(self, image_id, **said)
        await served.blobs.put(Write(*image_objects.metadata_of(image)), action="restore")

    monkeypatch.setattr(inventory, "point", brought_back)
    finding = await repaired(served)
    assert finding["repaired"] is False
    assert "it is there by now" in finding["detail"]
    assert (await stored(served, image.imageId)).tags == {"brought": "back"}
