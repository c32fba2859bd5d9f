"""An image whose metadata object is damaged or lost is shown as far as can be, and deleted."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import FormData

from deeplens_streams.audit import settled
from deeplens_streams.deletion import image as deletion
from deeplens_streams.deletion.lost import find_lost, tombstone_of
from deeplens_streams.storage import image_objects, object_keys
from deeplens_streams.storage.blobs.store import Write
from models.images import StoredImage
from tests.support.audits import audited, faults, remove, stored
from tests.support.photographs import photograph
from tests.support.web_server import SEARCH, TENANT, Web, running, until

PICTURE = photograph("rocket").data


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Web]:
    monkeypatch.setattr(settled, "GRACE_S", -1.0)
    async with running(tmp_path) as found:
        yield found


async def completed(served: Web, picture: bytes = PICTURE) -> StoredImage:
    answer = await served.upload(picture)
    await served.index(answer["imageId"])
    await until(lambda: served.acceptance.background.idle)
    return await stored(served, answer["imageId"])


async def damage(served: Web, image: StoredImage) -> None:
    await served.blobs.put(Write(image_objects.metadata_key_of(image), b"{"), action="damage")


def query_of(image: StoredImage) -> FormData:
    said = {"tenantId": TENANT, "imageId": image.imageId, "threshold": "-1"}
    return FormData(said, default_to_multipart=True)


async def left_of(served: Web, image: StoredImage) -> list[str]:
    """Return every key that names the image, but for what tells that it was deleted."""
    uuid = image.imageId[4:]
    found = []
    for folder in (TENANT, object_keys.TRASH, object_keys.DELETING):
        keys = served.blobs.walk(folder, action="look")
        found += [key async for key in keys if uuid in key and f"{TENANT}/deleted/" not in key]
    return found


@pytest.mark.parametrize("lost", ["damaged", "missing", "both", "everything but the vector"])
async def test_it_can_be_deleted_by_its_id(served: Web, lost: str) -> None:
    served.purges = True
    image, kept = await completed(served), await completed(served, photograph("coffee").data)
    key = image_objects.metadata_key_of(image)
    if lost == "damaged":
        await damage(served, image)
    else:
        await remove(served, key)
    if lost in ("both", "everything but the vector"):
        await remove(served, object_keys.pointer_key(image.imageId))
    if lost == "everything but the vector":
        await remove(served, image.originalKey)
        del served.rows.held[image.imageId]
    async with served.client.delete(f"/api/v1/images/{image.imageId}?tenantId=another") as response:
        assert response.status == 404
    async with served.client.delete(
        f"/api/v1/images/{image.imageId}?tenantId={TENANT}"
    ) as response:
        answer = await response.json()
        assert response.status == 200, answer
    assert {step["status"] for step in answer["deletionSteps"]} == {"completed"}
    await until(lambda: not served._work)
    model = served.model.name
    assert served.vectors is not None
    found = await served.vectors.present([image.imageId, kept.imageId], tenant=TENANT, model=model)
    assert found == {kept.imageId}
    assert await left_of(served, image) == []
    findings, total = await audited(served)
    assert (faults(findings), total["accepted"], total["deleted"]) == ([], 2, 1)
    async with served.client.delete(f"/api/v1/images/{image.imageId}") as response:
        assert response.status == 200  # and asked again


async def test_what_never_was_cannot_be_deleted(served: Web) -> None:
    await completed(served)
    stray = "img_00000000-0000-4000-8000-000000000001"
    for query in ("", f"?tenantId={TENANT}"):
        async with served.client.delete(f"/api/v1/images/{stray}{query}") as response:
            assert response.status == 404


async def test_a_damaged_tombstone_does_not_hold_up_its_deletion(served: Web) -> None:
    served.purges = True
    image = await completed(served)
    async with served.client.delete(f"/api/v1/images/{image.imageId}") as response:
        assert response.status == 200
    await until(lambda: not served._work)
    key = image_objects.metadata_key_of(image).replace("/metadata/", "/deleted/")
    await served.blobs.put(Write(key, b""), action="damage")
    async with served.client.delete(f"/api/v1/images/{image.imageId}") as response:
        assert response.status == 200
    await until(lambda: not served._work)
    assert (await audited(served))[0] == []


async def test_its_trash_goes_with_it(served: Web) -> None:
    served.purges = True
    image = await completed(served)
    await damage(served, image)
    await audited(served, "repair=true")
    assert len((await served.services.trash.page(limit=9)).entries) == 1
    async with served.client.delete(f"/api/v1/images/{image.imageId}") as response:
        assert response.status == 200
    assert (await served.services.trash.page(limit=9)).entries == []


async def test_a_deletion_that_is_cut_off_is_finished(served: Web) -> None:
    image = await completed(served)
    await damage(served, image)
    row = served.rows.held[image.imageId]
    place = await find_lost(served.services, image.imageId, tenant=None, row=row)
    assert place is not None
    tombstone = await tombstone_of(
        served.services, tenant=place.tenant, image_id=image.imageId, ms=place.ms, row=row
    )
    # Killed behind the third write.
    await served.services.tombstones.put(tombstone)
    await served.services.tombstones.begin(tombstone)
    served.purges = True
    assert await deletion.finish(served.services, served.publish) == 1
    await until(lambda: not served._work)
    assert await left_of(served, image) == []


async def test_its_bytes_can_be_uploaded_again(served: Web) -> None:
    image = await completed(served)
    await damage(served, image)
    answer = await served.upload(PICTURE)
    assert answer["duplicateOf"] is None
    await until(lambda: served.acceptance.background.idle)
    claim = await served.claims.find(tenant=TENANT, checksum=image.checksumSha256)
    assert claim is not None
    assert claim.image_id == answer["imageId"]
    await served.index(answer["imageId"])
    assert (await served.upload(PICTURE))["duplicateOf"] == answer["imageId"]


async def test_a_search_that_finds_it_shows_no_broken_result(served: Web) -> None:
    image = await completed(served)
    await damage(served, image)
    async with served.client.post(SEARCH, data=query_of(image)) as response:
        assert response.status == 200
    other = await completed(served, photograph("coffee").data)
    async with served.client.post(SEARCH, data=query_of(other)) as response:
        (hit,) = (await response.json())["results"]
    assert hit["imageId"] == image.imageId
    async with served.client.get(hit["thumbnailUrl"]) as response:
        assert (response.status, response.content_type) == (200, "image/jpeg")
    async with served.client.get(f"/api/v1/images/{image.imageId}/content") as response:
        assert (response.status, response.content_type) == (200, "image/jpeg")
        assert await response.read() == PICTURE
    for path in ("content", "thumbnail"):
        url = f"/api/v1/images/{image.imageId}/{path}?tenantId=another"
        async with served.client.get(url) as response:
            assert response.status == 404
    await remove(served, image.originalKey)
    async with served.client.get(f"/api/v1/images/{image.imageId}/content") as response:
        assert response.status == 500
        assert (await response.json())["errorCode"] == "DAMAGED_METADATA"
