"""A deleted image is gone at once, leaves nothing, and the answer proves it."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import obstore
import orjson
import pytest
from aiohttp import FormData

from agents import dead_letters as keeper
from deeplens_streams.broker import codec
from deeplens_streams.broker.topology import DELETED, PROGRESS
from deeplens_streams.client import models
from deeplens_streams.deletion import image as begun_deletions
from deeplens_streams.deletion import resume
from deeplens_streams.deletion import tenant as tenant_purge
from deeplens_streams.errors import BrokerUnavailable
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.web.handlers import deletion
from models.deletion import PurgeStep
from models.events import ProcessingFailed
from models.letters import DeadLetter
from tests.support.dead_letters import fail
from tests.support.photographs import photograph
from tests.support.web_server import SEARCH, TENANT, Web, running, until

PICTURE = photograph("rocket").data


@pytest.fixture(params=["collection", "shared"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path, tenancy=request.param) as found:
        found.purges = True
        yield found


async def call(served: Web, method: str, path: str, expected: int) -> dict[str, Any]:
    async with served.client.request(method, path) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == expected, answer
        return answer


async def uploaded(served: Web, picture: bytes = PICTURE, tenant: str = TENANT) -> str:
    image_id: str = (await served.upload(picture, tenantId=tenant))["imageId"]
    await served.index(image_id)
    await until(lambda: served.acceptance.background.idle)
    return image_id


async def keys(served: Web) -> list[str]:
    found = await obstore.list(served.blobs._store).collect_async()
    return sorted(each["path"] for each in found)


async def test_nothing_is_left_but_the_tombstone(served: Web) -> None:
    image_id = await uploaded(served)
    other = await uploaded(served, photograph("coffee").data)
    answer = await call(served, "DELETE", f"/api/v1/images/{image_id}", 200)
    assert answer.keys() == models.Deletion.blank().keys()
    assert answer["status"] == "deleted"
    assert answer["completedAt"]
    assert [each["step"] for each in answer["deletionSteps"]] == list(PurgeStep)
    assert all(each["status"] == "completed" and each["at"] for each in answer["deletionSteps"])

    bare = image_id.removeprefix("img_")
    mine = [key for key in await keys(served) if bare in key or "checksum" in key]
    kinds = sorted(key.split("/")[1] if key.startswith(TENANT) else "pointer" for key in mine)
    assert kinds == ["checksum", "deleted", "pointer"]  # the claim is the other picture's
    assert served.vectors is not None
    model = served.model.name
    assert await served.vectors.get_vector(tenant=TENANT, model=model, image_id=image_id) is None
    assert await served.vectors.count(tenant=TENANT, model=model) == 1

    again = await call(served, "DELETE", f"/api/v1/images/{image_id}", 200)
    assert again["completedAt"] == answer["completedAt"]
    status = await call(served, "GET", f"/api/v1/images/{image_id}/status", 200)
    assert status["status"] == "deleted"
    for path in ("", "/content", "/thumbnail"):
        await call(served, "GET", f"/api/v1/images/{image_id}{path}", 404)
    page = await call(served, "GET", f"/api/v1/images?tenantId={TENANT}", 200)
    assert [each["imageId"] for each in page["images"]] == [other]


async def test_the_same_bytes_can_be_uploaded_again(served: Web) -> None:
    image_id = await uploaded(served)
    await call(served, "DELETE", f"/api/v1/images/{image_id}", 200)
    again = await served.upload(PICTURE)
    assert again["duplicateOf"] is None
    assert again["imageId"] != image_id


async def test_dead_letters_of_a_deleted_image_are_gone(served: Web) -> None:
    image_id, letter_id = await fail(served)
    await call(served, "POST", f"/api/v1/dead-letters/{letter_id}/retry", 200)
    await call(served, "DELETE", f"/api/v1/images/{image_id}", 200)
    await call(served, "GET", f"/api/v1/dead-letters/{letter_id}", 404)


async def test_a_letter_of_a_later_run_is_gone_too(served: Web) -> None:
    # The first run left none: an audit had the image processed again.
    image_id, letter_id = await fail(served, generation=2)
    served.rows.held[image_id].generation = 2
    await call(served, "DELETE", f"/api/v1/images/{image_id}", 200)
    await call(served, "GET", f"/api/v1/dead-letters/{letter_id}", 404)


async def test_a_letter_that_comes_behind_the_purge_is_not_kept(served: Web) -> None:
    image_id, letter_id = await fail(served)
    letters = served.services.letters
    kept = await letters.find(letter_id)
    assert kept is not None
    await letters.remove(letter_id)
    await call(served, "DELETE", f"/api/v1/images/{image_id}", 200)
    await keeper.process(letter_event(kept), served.services)
    assert [letter async for letter in letters.walk(tenant=TENANT)] == []
    await call(served, "GET", f"/api/v1/dead-letters/{letter_id}", 404)


def letter_event(letter: DeadLetter) -> ProcessingFailed:
    """Return the event by which a letter comes to who keeps it."""
    data = {name: value for name, value in letter.to_wire().items() if name != "letterId"}
    return codec.from_wire(
        ProcessingFailed,
        {
            "eventType": ProcessingFailed.EVENT_TYPE,
            "eventId": letter.letterId,
            "timestamp": letter.failedAt,
            "tenantId": letter.tenantId,
            "correlationId": letter.correlationId,
            "data": data,
        },
    )


async def test_while_the_purge_waits_the_image_is_gone_all_the_same(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_PATIENCE_S", 0.1)
    served.purges = False
    image_id = await uploaded(served)
    answer = await call(served, "DELETE", f"/api/v1/images/{image_id}", 202)
    assert answer["completedAt"] is None
    assert {each["status"] for each in answer["deletionSteps"]} == {"pending"}
    await call(served, "GET", f"/api/v1/images/{image_id}/content", 404)
    assert await found_by_search(served) == []
    served.rows.held.clear()  # a row that nobody has written yet
    status = await call(served, "GET", f"/api/v1/images/{image_id}/status", 200)
    assert status["status"] == "deleted"
    assert [each.topic for each in served.sent[-2:]] == [DELETED, PROGRESS]
    served.purges = True
    await call(served, "DELETE", f"/api/v1/images/{image_id}", 200)


async def found_by_search(served: Web) -> list[str]:
    form = FormData(quote_fields=False)
    form.add_field("tenantId", TENANT)
    form.add_field("threshold", "-1")
    form.add_field("queryImage", PICTURE, filename="a.jpg")
    async with served.client.post(SEARCH, data=form) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return [each["imageId"] for each in answer["results"]]


async def test_a_deletion_that_kafka_did_not_take_is_done_all_the_same(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = await uploaded(served)
    served.broker_fault = BrokerUnavailable()
    answer = await call(served, "DELETE", f"/api/v1/images/{image_id}", 202)
    assert answer["completedAt"] is None
    await call(served, "GET", f"/api/v1/images/{image_id}", 404)
    again = await call(served, "DELETE", f"/api/v1/images/{image_id}", 202)
    assert again["requestedAt"] == answer["requestedAt"]

    monkeypatch.setattr(resume, "_LOOK_S", 0.01)
    async with resume.PendingDeletions(served.services, served.publish):
        served.broker_fault = None
        await until(lambda: served.rows.held[image_id].status == "deleted")
        await served.settled()
    left = [key for key in await keys(served) if image_id.removeprefix("img_") in key]
    assert [key.split("/")[-4 if "deleted" in key else 0] for key in left] == ["deleted", "index"]
    assert (await call(served, "DELETE", f"/api/v1/images/{image_id}", 200))["completedAt"]


async def test_a_refused_upload_whose_worker_died_leaves_nothing(served: Web) -> None:
    image_id = await uploaded(served)
    image = await served.storage.find(image_id)
    assert image is not None
    await begun_deletions.begin(image, served.services, refused=True)
    assert await begun_deletions.finish(served.services, served.publish) == 1
    await served.settled()
    assert not [key for key in await keys(served) if image_id.removeprefix("img_") in key]
    assert await begun_deletions.finish(served.services, served.publish) == 0


async def test_what_is_left_of_the_beginning_of_a_deletion_goes(served: Web) -> None:
    image = await served.storage.find(await uploaded(served))
    assert image is not None
    tombstone = await begun_deletions.begin(image, served.services)
    await begun_deletions.announce(tombstone, served.services, served.publish)
    await served.settled()
    await served.services.tombstones.begin(tombstone)  # as if it had died behind the event
    gone = image.imageId.replace(image.imageId[4:8], "dead")
    for raw in (b"{", orjson.dumps({})):
        damaged = Write(object_keys.deletion_key(gone), raw)
        await served.blobs.put(damaged, action="damage")
        assert await begun_deletions.finish(served.services, served.publish) > 0
    assert not [key for key in await keys(served) if object_keys.DELETING in key]
    found = await served.services.tombstones.find(image.imageId)
    assert found is not None
    assert found.completedAt
    assert [each.topic for each in served.sent].count(DELETED) == 1


async def test_unknown_images_and_other_tenants(served: Web) -> None:
    image_id = await uploaded(served)
    await call(served, "DELETE", f"/api/v1/images/{uuid.uuid4()}", 404)
    await call(served, "DELETE", "/api/v1/images/x", 400)
    await call(served, "DELETE", f"/api/v1/images/{image_id}?tenantId=another", 404)
    await call(served, "GET", f"/api/v1/images/{image_id}", 200)
    await call(served, "DELETE", f"/api/v1/images/{image_id}?tenantId={TENANT}", 200)
    await call(served, "DELETE", f"/api/v1/images/{image_id}?tenantId=another", 404)


async def test_a_whole_tenant_is_purged(served: Web) -> None:
    mine = [
        await uploaded(served, photograph(name).data) for name in ("rocket", "coffee", "camera")
    ]
    theirs = await uploaded(served, tenant="another")
    await fail(served)
    path = f"/api/v1/admin/tenants/{TENANT}"
    await call(served, "GET", f"{path}/purge", 404)
    await call(served, "DELETE", path, 400)
    await call(served, "DELETE", f"{path}?confirm={TENANT}", 202)
    await until(lambda: not served._work)
    answer = await call(served, "GET", f"{path}/purge", 200)
    assert answer["completedAt"]
    assert (answer["imagesDeleted"], answer["imagesLeft"]) == (4, 0)
    left = await keys(served)
    assert [key for key in left if TENANT in key] == [f"purged/{TENANT}.json"]
    assert [key for key in left if key.startswith("index/")] == [f"index/{theirs[4:]}"]
    for image_id in mine:
        await call(served, "GET", f"/api/v1/images/{image_id}/status", 404)
    page = await call(served, "GET", "/api/v1/images?tenantId=another", 200)
    assert [each["imageId"] for each in page["images"]] == [theirs]
    again = await uploaded(served)
    page = await call(served, "GET", f"/api/v1/images?tenantId={TENANT}", 200)
    assert [each["imageId"] for each in page["images"]] == [again]


async def test_a_tenants_purge_that_is_cut_off_leaves_nothing(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rocket", "coffee", "camera"):
        await uploaded(served, photograph(name).data)
    monkeypatch.setattr(tenant_purge, "BATCH", 1)
    served.purges = False
    path = f"/api/v1/admin/tenants/{TENANT}"
    await call(served, "DELETE", f"{path}?confirm={TENANT}", 202)
    (asked,) = [each.event for each in served.sent if each.topic is DELETED]
    served.purges = True
    served.broker_fault = BrokerUnavailable()  # behind the first tombstone
    with pytest.raises(BrokerUnavailable):
        await served.purge(asked)
    served.broker_fault = None
    await served.purge(asked)
    await until(lambda: not served._work)
    answer = await call(served, "GET", f"{path}/purge", 200)
    assert answer["completedAt"]
    assert (answer["imagesDeleted"], answer["imagesLeft"]) == (3, 0)
    assert [key for key in await keys(served) if TENANT in key] == [f"purged/{TENANT}.json"]
