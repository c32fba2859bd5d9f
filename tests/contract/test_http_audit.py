"""The audit balances, names what is wrong, and mends what can be mended."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplens_streams import audit as auditing
from deeplens_streams import deletion, orphans
from deeplens_streams.storage import objects
from deeplens_streams.storage.blobs import Write
from deeplens_streams.topics import DELETED, UPLOADED
from deeplens_streams.vectors.base import VectorPoint
from deeplens_streams.web import intake
from models.status import ImageRow, Step, StepStatus
from tests.contract.test_http_dead_letters import fail
from tests.photographs import photograph
from tests.web_server import TENANT, Web, report, row_of, running, until

AUDIT = "/api/v1/admin/audit"
PICTURE = photograph("rocket").data


@pytest.fixture(params=["collection", "shared"])
async def served(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Web]:
    for module in (auditing, orphans):
        monkeypatch.setattr(module, "GRACE_S", -1.0)
    async with running(tmp_path, tenancy=request.param) as found:
        yield found


async def audited(served: Web, query: str = "") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the findings and the ledger of all."""
    async with served.client.post(f"{AUDIT}?{query}") as response:
        assert response.status == 200
        lines = [json.loads(line) for line in (await response.text()).splitlines()]
    assert lines[-1]["type"] == "total"
    return [line for line in lines if line["type"] == "finding"], lines[-1]


def faults(findings: list[dict[str, Any]]) -> list[str]:
    """Return what was found, in order, but for claims: they are made behind the answer."""
    found = [each["fault"] for each in findings]
    return sorted(each for each in found if each != "claim_orphaned")


async def completed(served: Web, tenant: str = TENANT) -> str:
    answer = await served.upload(PICTURE, tenantId=tenant, skipDuplicateCheck="true")
    await served.index(answer["imageId"])
    image_id: str = answer["imageId"]
    return image_id


async def test_every_image_is_in_one_column(served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (auditing, orphans):
        monkeypatch.setattr(module, "GRACE_S", 60.0)
    served.purges = True
    for _ in range(3):
        await completed(served)
    await completed(served, "another")
    await fail(served)
    gone = await completed(served)
    async with served.client.delete(f"/api/v1/images/{gone}") as response:
        assert response.status == 200
    await served.upload(PICTURE, skipDuplicateCheck="true")
    findings, total = await audited(served)
    assert findings == []
    counts = {name: total[name] for name in ("accepted", "completed", "failed", "partial")}
    assert counts == {"accepted": 7, "completed": 4, "failed": 1, "partial": 0}
    assert (total["deleted"], total["inFlight"]) == (1, 1)
    assert total["balanced"] is True
    _, mine = await audited(served, f"tenantId={TENANT}")
    assert mine["accepted"] == 6


async def test_what_is_stuck_is_processed_again(served: Web) -> None:
    fresh = (await served.upload(PICTURE, skipDuplicateCheck="true"))["imageId"]
    halfway = (await served.upload(PICTURE, skipDuplicateCheck="true"))["imageId"]
    served.rows.held[halfway] = row_of(
        halfway, "processing", [report(Step.IMAGE_PROCESSING, StepStatus.COMPLETED)]
    )
    served.backlog.unread = 5  # somebody is at it
    assert (await audited(served))[0] == []
    served.backlog.unread = 0
    findings, _ = await audited(served)
    assert {(each["imageId"], each["fault"], each["repaired"]) for each in findings} == {
        (fresh, "stuck", False),
        (halfway, "stuck", False),
    }
    served.sent.clear()
    findings, total = await audited(served, "repair=true")
    assert all(each["repaired"] for each in findings)
    assert total["repaired"] == 2
    sent = {
        each.event.image_id: each.event.generation for each in served.sent if each.topic is UPLOADED
    }
    assert sent == {fresh: 1, halfway: 2}


async def test_a_missing_vector_is_made_again(served: Web) -> None:
    image_id = await completed(served)
    assert served.vectors is not None
    await served.vectors.delete([image_id], tenant=TENANT, model=served.model.name)
    ((finding,), _) = await audited(served, "repair=true")
    assert (finding["imageId"], finding["fault"]) == (image_id, "vector_missing")
    assert served.sent[-2].topic is UPLOADED
    assert served.sent[-2].event.generation == 2


async def test_a_vector_of_nobody_is_removed(served: Web) -> None:
    image_id = await completed(served)
    await served.storage.delete_metadata(tenant=TENANT, image_id=image_id)
    kept = await completed(served)
    findings, _ = await audited(served, "repair=true")
    assert {each["imageId"] for each in findings} == {image_id}
    assert faults(findings) == ["file_orphaned", "file_orphaned", "vector_orphaned"]
    assert served.vectors is not None
    model = served.model.name
    assert await served.vectors.present([image_id, kept], tenant=TENANT, model=model) == {kept}
    assert (await audited(served))[0] == []


async def test_what_a_dead_upload_left_is_removed(served: Web) -> None:
    answer = await served.upload(PICTURE)
    await until(lambda: not intake._behind)
    await served.storage.delete_metadata(tenant=TENANT, image_id=answer["imageId"])
    findings, _ = await audited(served, "repair=true")
    assert [each["fault"] for each in findings] == ["file_orphaned", "claim_orphaned"]
    assert (await audited(served))[0] == []
    assert (await served.upload(PICTURE))["duplicateOf"] is None


async def test_missing_bytes_are_named_and_cannot_be_mended(served: Web) -> None:
    image_id = await completed(served)
    image = await served.storage.find(image_id)
    assert image is not None
    await served.storage.delete_object(tenant=TENANT, key=image.originalKey)
    ((finding,), _) = await audited(served, "repair=true")
    assert finding["fault"] == "original_missing"
    assert finding["repaired"] is False


async def test_a_failure_without_a_letter_is_processed_again(served: Web) -> None:
    image_id, letter_id = await fail(served)
    # The letter that a row refers to is the one that its event would have.
    row = served.rows.held[image_id]
    assert (await audited(served))[0] == []
    await served.context.services.letters.remove(letter_id)
    ((finding,), _) = await audited(served, "repair=true")
    assert (finding["imageId"], finding["fault"]) == (image_id, "letter_missing")
    assert served.sent[-2].event.generation == row.generation + 1


async def test_a_letter_that_is_on_its_way_is_not_missing(served: Web) -> None:
    _, letter_id = await fail(served)
    await served.services.letters.remove(letter_id)
    served.backlog.unread = 1  # who keeps letters has still to read it
    assert (await audited(served))[0] == []


async def test_what_is_deleted_meanwhile_is_no_fault(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.purges = True
    image_id = await completed(served)
    image = await served.storage.find(image_id)
    assert image is not None

    async def deleted_behind(image_ids: Sequence[str]) -> dict[str, ImageRow]:
        found = {each: served.rows.held[each] for each in image_ids}
        await served.publish(*deletion.messages(await deletion.begin(image, served.services)))
        await until(lambda: not served._work)
        return found

    monkeypatch.setattr(served.rows, "rows", deleted_behind)
    findings, _ = await audited(served)
    assert findings == []


async def test_one_damaged_object_does_not_end_an_audit(served: Web) -> None:
    image_id = await completed(served)
    stored = await served.storage.find(image_id)
    assert stored is not None
    key, _ = objects.metadata_of(stored)
    await served.blobs.put(Write(key, b"{"), action="damage")
    findings, _ = await audited(served, "repair=true")
    assert findings == []
    assert await served.storage.size(tenant=TENANT, key=stored.originalKey) is not None


async def test_a_letter_of_nobody_is_closed(served: Web) -> None:
    image_id, _ = await fail(served)
    await served.storage.delete_metadata(tenant=TENANT, image_id=image_id)
    findings, _ = await audited(served, "repair=true")
    assert faults(findings) == ["file_orphaned", "letter_orphaned"]
    assert (await audited(served))[0] == []


async def test_a_purge_that_was_cut_off_goes_on(served: Web) -> None:
    image_id = await completed(served)
    image = await served.storage.find(image_id)
    assert image is not None
    await deletion.begin(image, served.context.services)
    findings, total = await audited(served)
    assert {each["fault"] for each in findings} == {"purge_unfinished"}
    assert total["deleted"] == 1
    served.purges = True
    await audited(served, "repair=true")
    await until(lambda: not served._work)
    assert [each.topic for each in served.sent if each.topic is DELETED]
    assert (await audited(served))[0] == []


async def test_an_audit_streams_in_pages(served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (auditing, orphans):
        monkeypatch.setattr(module, "PAGE", 2)
    for _ in range(5):
        await completed(served)
    assert served.vectors is not None
    stray = VectorPoint(
        "img_00000000-0000-4000-8000-000000000000",
        np.ones(2048, np.float32),
        {
            "imageId": "img_00000000-0000-4000-8000-000000000000",
            "uploadedAt": "2026-01-01T00:00:00.000Z",
            "tags": {},
        },
    )
    await served.vectors.upsert([stray], tenant=TENANT, model=served.model.name)
    findings, total = await audited(served)
    assert [each["fault"] for each in findings] == ["vector_orphaned"]
    assert total["completed"] == 5


async def test_while_rows_move_the_audit_says_that_it_cannot_go_on(served: Web) -> None:
    await completed(served)
    served.rows.moving = True
    async with served.client.post(AUDIT) as response:
        lines = [json.loads(line) for line in (await response.text()).splitlines()]
    assert lines[-1]["type"] == "error"
    assert lines[-1]["errorCode"] == "ROW_MOVING"


@pytest.mark.parametrize("query", ["tenantId=A", "repair=x"])
async def test_bad_questions(served: Web, query: str) -> None:
    async with served.client.post(f"{AUDIT}?{query}") as response:
        assert response.status == 400
