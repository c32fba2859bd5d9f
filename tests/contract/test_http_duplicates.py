"""The same bytes of the same tenant: the second upload finds the first."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData

from deeplens_streams.circuit_breaker import CircuitOpen
from deeplens_streams.errors import BrokerUnavailable, StorageUnavailable
from deeplens_streams.ingest.acceptance import Accepted
from deeplens_streams.ingest.timings import Timings
from deeplens_streams.storage import ObjectImages
from deeplens_streams.web import upload_acceptance
from models.status import Step, StepStatus
from tests.support.photographs import photograph
from tests.support.web_server import TENANT, UPLOAD, Web, report, row_of, running, until

PICTURE = photograph("rocket").data


@pytest.fixture(params=["memory", "local"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Web]:
    folder = tmp_path / "images"
    url = "memory://" if request.param == "memory" else folder.as_uri()
    async with running(tmp_path, storage_url=url) as found:
        yield found


async def confirmed(served: Web, answer: dict[str, Any]) -> None:
    """Wait until an accepted upload's claim says so."""
    await until(lambda: served.acceptance.background.idle)
    stored = await served.storage.find(answer["imageId"])
    assert stored is not None
    claim = await served.claims.find(tenant=stored.tenantId, checksum=stored.checksumSha256)
    assert claim is not None
    assert claim.confirmed


async def test_the_second_upload_answers_with_the_first(served: Web) -> None:
    first = await served.upload(PICTURE)
    await confirmed(served, first)
    second = await served.upload(PICTURE, name="another name.jpg")
    assert second["imageId"] == second["duplicateOf"] == first["imageId"]
    assert second["status"] == "uploaded"
    assert first["imageId"] in second["message"]
    assert second["statusCheckUrl"] == first["statusCheckUrl"]
    assert len(served.published) == 1
    page = await served.storage.list_images(tenant=TENANT, limit=9)
    assert len(page.images) == 1

    await served.index(first["imageId"])
    third = await served.upload(PICTURE)
    assert (third["duplicateOf"], third["status"]) == (first["imageId"], "completed")


async def test_another_tenant_has_its_own(served: Web) -> None:
    first = await served.upload(PICTURE)
    other = await served.upload(PICTURE, tenantId="another")
    assert other["duplicateOf"] is None
    assert other["imageId"] != first["imageId"]


async def test_who_does_not_want_the_check_gets_an_image_of_their_own(served: Web) -> None:
    first = await served.upload(PICTURE, skipDuplicateCheck="true")
    second = await served.upload(PICTURE, skipDuplicateCheck="true")
    assert first["imageId"] != second["imageId"]
    assert first["duplicateOf"] is second["duplicateOf"] is None
    await confirmed(served, first)
    third = await served.upload(PICTURE)
    assert third["duplicateOf"] == first["imageId"]


async def test_many_at_the_same_moment_create_one_image(served: Web) -> None:
    answers = await asyncio.gather(*(served.upload(PICTURE) for _ in range(12)))
    assert len({answer["imageId"] for answer in answers}) == 1
    assert sum(answer["duplicateOf"] is None for answer in answers) == 1
    assert len(served.published) == 1
    page = await served.storage.list_images(tenant=TENANT, limit=9)
    assert len(page.images) == 1


async def test_nobody_is_referred_to_a_refused_upload(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def refuse(_event: object) -> None:
        arrived.set()
        await release.wait()
        raise BrokerUnavailable

    door = upload_acceptance(served.context)
    answer = await served.upload(photograph("coffee").data)
    stored = await served.storage.find(answer["imageId"])
    assert stored is not None
    stored.checksumSha256 = "0" * 64
    monkeypatch.setattr(door, "_publish", refuse)
    refused = asyncio.create_task(door.accept(stored, b"bytes"))
    await arrived.wait()

    another = await served.storage.find((await served.upload(PICTURE))["imageId"])
    assert another is not None
    another.checksumSha256 = stored.checksumSha256
    waiting = asyncio.create_task(upload_acceptance(served.context).accept(another, b"bytes"))
    done, _ = await asyncio.wait({waiting}, timeout=0.3)
    assert not done
    release.set()
    with pytest.raises(BrokerUnavailable):
        await refused
    assert await waiting == Accepted(another)


async def test_after_a_failure_the_same_bytes_are_processed_again(served: Web) -> None:
    first = await served.upload(PICTURE)
    await confirmed(served, first)
    failed = report(Step.FEATURE_EXTRACTION, StepStatus.FAILED)
    served.rows.held[first["imageId"]] = row_of(first["imageId"], "failed", [failed])
    second = await served.upload(PICTURE)
    assert second["duplicateOf"] is None
    assert second["imageId"] != first["imageId"]
    await confirmed(served, second)
    assert (await served.upload(PICTURE))["duplicateOf"] == second["imageId"]


async def test_after_the_first_is_gone_the_same_bytes_are_processed_again(served: Web) -> None:
    first = await served.upload(PICTURE)
    await confirmed(served, first)
    await served.storage.delete_metadata(tenant=TENANT, image_id=first["imageId"])
    second = await served.upload(PICTURE)
    assert second["duplicateOf"] is None
    assert second["imageId"] != first["imageId"]


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_while_rows_move_a_duplicate_waits_for_what_became_of_the_first(
    served: Web, status: str
) -> None:
    first = await served.upload(PICTURE)
    await confirmed(served, first)
    served.rows.held[first["imageId"]] = row_of(first["imageId"], status, [])
    served.rows.moving = True
    waiting = asyncio.create_task(served.upload(PICTURE))
    done, _ = await asyncio.wait({waiting}, timeout=0.3)
    assert not done
    served.rows.moving = False
    second = await waiting
    is_duplicate = status == "completed"
    assert (second["duplicateOf"] == first["imageId"]) == is_duplicate
    assert (second["imageId"] == first["imageId"]) == is_duplicate


async def test_a_duplicate_is_refused_where_nobody_can_tell_whether_the_first_failed(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.hasten(row_s=0.0)
    await confirmed(served, await served.upload(PICTURE))
    served.rows.moving = True
    answer = await refused(served)
    assert (answer["errorCode"], answer["duplicateOf"]) == ("ROW_MOVING", None)
    assert (await served.upload(PICTURE, skipDuplicateCheck="true"))["duplicateOf"] is None


async def test_a_claim_of_an_upload_that_died_is_taken_over(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.hasten(pending_s=0.2)
    dead = await served.storage.find((await served.upload(PICTURE))["imageId"])
    assert dead is not None
    await until(lambda: served.acceptance.background.idle)
    # As a process leaves it that is killed behind its first write.
    await served.claims.release(tenant=TENANT, checksum=dead.checksumSha256, image_id=dead.imageId)
    await served.blobs.put(served.claims.pending(dead), action="die")
    await served.storage.delete_metadata(tenant=TENANT, image_id=dead.imageId)
    answers = await asyncio.gather(*(served.upload(PICTURE) for _ in range(5)))
    (made,) = {answer["imageId"] for answer in answers}
    assert made != dead.imageId


async def test_while_rows_move_nobody_is_referred_to_an_upload_that_died(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.hasten(pending_s=0.2, row_s=0.0)
    dead = await served.storage.find((await served.upload(PICTURE))["imageId"])
    assert dead is not None
    await until(lambda: served.acceptance.background.idle)
    # As a process leaves it that is killed before its event.
    await served.claims.release(tenant=TENANT, checksum=dead.checksumSha256, image_id=dead.imageId)
    await served.blobs.put(served.claims.pending(dead), action="die")
    served.rows.moving = True
    answer = await refused(served)
    assert (answer["errorCode"], answer["duplicateOf"]) == ("ROW_MOVING", None)
    served.rows.moving = False
    assert (await served.upload(PICTURE))["duplicateOf"] is None


async def test_a_claim_that_was_taken_over_in_vain_is_given_back(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await served.upload(PICTURE)
    await confirmed(served, first)
    await served.storage.delete_metadata(tenant=TENANT, image_id=first["imageId"])

    put = ObjectImages.put_image

    async def refuse(self: ObjectImages, *args: Any, **options: Any) -> None:
        if options["claim"] is not None:
            await put(self, *args, **options)
        raise StorageUnavailable from CircuitOpen  # as an open breaker does

    with monkeypatch.context() as away:
        away.setattr(ObjectImages, "put_image", refuse)
        await refused(served)
    await until(lambda: served.acceptance.background.idle)
    assert [claim async for claim in served.claims.walk(tenant=TENANT)] == []


async def test_an_upload_does_not_wait_for_its_own_claim(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = ObjectImages.put_image
    tries = 0

    async def twice(self: ObjectImages, *args: Any, **options: Any) -> None:
        # As a store does that is asked again by its client because its answer was lost.
        nonlocal tries
        tries += 1
        if tries == 1:
            await self._blobs.put(options["claim"], action="store a picture")
        await put(self, *args, **options)

    monkeypatch.setattr(ObjectImages, "put_image", twice)
    async with asyncio.timeout(Timings().pending_s / 2):
        assert (await served.upload(PICTURE))["duplicateOf"] is None


async def refused(served: Web) -> dict[str, Any]:
    """Upload the picture, which is not to be taken now."""
    form = FormData(default_to_multipart=True)
    form.add_field("tenantId", TENANT)
    form.add_field("file", PICTURE, filename="a.jpg")
    async with served.client.post(UPLOAD, data=form) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == 503, answer
        return answer


async def test_an_upload_that_lost_its_claim_meanwhile_is_refused(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.hasten(pending_s=0.0)

    async def lose(*_args: object, **_options: object) -> None:
        return None

    monkeypatch.setattr(served.claims.__class__, "find", lose)
    await refused(served)
    page = await served.storage.list_images(tenant=TENANT, limit=9)
    assert page.images == []
