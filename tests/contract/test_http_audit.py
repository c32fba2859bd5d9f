"""The audit balances, names what is wrong, and mends what can be mended."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import ExifTags, Image

from deeplens_streams.audit import lost_original, orphans, settled, sightings
from deeplens_streams.audit import report as ledger
from deeplens_streams.audit import rows as patient_rows
from deeplens_streams.broker.topology import DELETED, PROGRESS, UPLOADED
from deeplens_streams.deletion import image as deletion
from deeplens_streams.errors import (
    DependencyUnavailable,
    RowMoving,
    StorageUnavailable,
    VectorsUnavailable,
)
from deeplens_streams.imaging.header import PictureHeader, inspect
from deeplens_streams.imaging.preprocessing import PREPROCESSING
from deeplens_streams.interactive_queries.shard import Partition, TablePage, TableShard
from deeplens_streams.storage import image_objects, object_keys
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.vectors.base import VectorPoint
from deeplens_streams.web.handlers import audit as web_audit
from models.deletion import TenantPurge
from models.events import utc_now
from models.images import StoredImage
from models.status import ImageRow, Step, StepStatus
from tests.support.audits import (
    AUDIT,
    PICTURE,
    audited,
    completed,
    damage,
    faults,
    follow,
    lines_of,
    remove,
    stored,
)
from tests.support.dead_letters import fail
from tests.support.odd_headers import small
from tests.support.web_server import TENANT, Web, done_row, report, row_of, running, until


@pytest.fixture(params=["collection", "shared"])
async def served(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Web]:
    monkeypatch.setattr(settled, "GRACE_S", -1.0)
    for name in ("PATIENCE_S", "_LOOK_S"):
        monkeypatch.setattr(patient_rows, name, 0.0)
    async with running(tmp_path, tenancy=request.param) as found:
        yield found


async def test_every_image_is_in_one_column(served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settled, "GRACE_S", 60.0)
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
    served.backlog.behind_s = 600  # somebody is at it
    assert (await audited(served))[0] == []
    served.backlog.behind_s = 0
    findings, _ = await audited(served)
    assert {(each["imageId"], each["fault"], each["repaired"]) for each in findings} == {
        (fresh, "stuck", False),
        (halfway, "stuck", False),
    }
    served.sent.clear()
    findings, total = await audited(served)
    # Of one of them the table says nothing; that the other is on its way is no secret.
    assert (total["accepted"], total["inFlight"], total["unknown"]) == (2, 1, 1)
    assert total["balanced"] is False
    findings, total = await audited(served, "repair=true")
    assert all(each["repaired"] for each in findings)
    assert total["repaired"] == 2
    assert (total["inFlight"], total["unknown"], total["balanced"]) == (2, 0, True)
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


async def test_vectors_that_were_put_aside_are_made_again(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = await completed(served)
    assert served.vectors is not None
    await served.vectors.delete([image_id], tenant=TENANT, model=served.model.name)
    aside = [served.model.name]

    async def damaged(*, tenant: str) -> list[str]:
        return list(aside) if tenant == TENANT else []

    async def give_up(*, tenant: str, model: str) -> None:
        assert tenant == TENANT
        aside.remove(model)

    monkeypatch.setattr(served.vectors, "damaged", damaged)
    monkeypatch.setattr(served.vectors, "give_up_damaged", give_up)
    for query in ("", "repair=true"):
        findings, _ = await audited(served, query)
        assert faults(findings) == ["collection_damaged", "vector_missing"]
    assert aside == []
    assert served.sent[-2].topic is UPLOADED


async def test_what_an_older_preprocessing_made_is_counted_and_made_again_where_asked(
    served: Web,
) -> None:
    """Of one the vector is older, of another what is told of it: before there was a version."""
    kept, vector, facts = [await completed(served) for _ in range(3)]
    assert served.vectors is not None
    place = {"tenant": TENANT, "model": served.model.name}
    point = await served.vectors.get_point(**place, image_id=vector)
    assert point is not None
    del point.payload["preprocessingVersion"]
    await served.vectors.upsert([point], **place)
    older = await stored(served, facts)
    assert older.metadata.preprocessingVersion == PREPROCESSING
    older.metadata.preprocessingVersion, older.metadata.width = None, 1
    key, data = image_objects.metadata_of(older)
    await served.blobs.put(Write(key, data.replace(b'"width"', b'"later":1,"width"')), action="age")

    findings, total = await audited(served, "repair=true")
    assert (findings, total["outdated"], total["balanced"]) == ([], 2, True)
    findings, _ = await audited(served, "outdated=true")
    told = {each["imageId"]: (each["fault"], each["detail"]) for each in findings}
    now = f"before preprocessing had a version; now it is {PREPROCESSING}"
    assert told == {
        vector: ("outdated", f"its vector was made {now}"),
        facts: ("outdated", f"its header was read {now}"),
    }
    served.sent.clear()
    findings, total = await audited(served, "outdated=true&repair=true")
    assert [each["repaired"] for each in findings] == [True, True]
    again = {each.event.image_id: each.event for each in served.sent if each.topic is UPLOADED}
    assert {name: event.generation for name, event in again.items()} == {vector: 2, facts: 2}
    renewed = await stored(served, facts)
    whole = await stored(served, kept)
    assert renewed.metadata.known_fields() == whole.metadata.known_fields()
    assert renewed.metadata.unknown_fields == {"later": 1}
    for image_id in (vector, facts):
        await served.index(image_id)
    assert (await audited(served, "outdated=true"))[1]["outdated"] == 0


async def test_places_that_were_asked_for_are_told_of_what_is_made_again(served: Web) -> None:
    told = Image.Exif()
    told.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSAltitude] = 7.0
    picture = small("JPEG", exif=told)
    for keeps in ("true", "false"):
        answer = await served.upload(picture, keepGps=keeps, skipDuplicateCheck="true")
        await served.index(answer["imageId"])
        older = await stored(served, answer["imageId"])
        facts = older.metadata.to_wire()
        older.metadata.preprocessingVersion = None
        await served.blobs.put(Write(*image_objects.metadata_of(older)), action="age")
        await audited(served, "outdated=true&repair=true")
        assert (await stored(served, older.imageId)).metadata.to_wire() == facts
        assert ("GPSInfo" in (facts["exifData"] or {})) == (keeps == "true")


async def test_what_would_not_be_taken_any_more_stays_as_it_is(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = await stored(served, await completed(served))
    older.metadata.preprocessingVersion = None
    await served.blobs.put(Write(*image_objects.metadata_of(older)), action="age")

    def little(file: BinaryIO, *, max_pixels: int, keep_gps: bool) -> PictureHeader:
        assert max_pixels > 10
        return inspect(file, max_pixels=10, keep_gps=keep_gps)

    monkeypatch.setattr(lost_original, "inspect", little)
    served.sent.clear()
    ((finding,), total) = await audited(served, "outdated=true&repair=true")
    assert (finding["fault"], finding["repaired"], total["completed"]) == ("outdated", False, 1)
    assert "what is there of it stays" in finding["detail"]
    assert served.sent == []
    assert (await stored(served, older.imageId)).to_wire() == older.to_wire()


async def test_what_is_deleted_while_its_header_is_read_stays_deleted(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = await stored(served, await completed(served))
    older.metadata.preprocessingVersion = None
    await served.blobs.put(Write(*image_objects.metadata_of(older)), action="age")
    header = lost_original.LostOriginals.header

    async def slow(self: lost_original.LostOriginals, image: StoredImage) -> PictureHeader:
        read = await header(self, image)
        async with served.client.delete(f"/api/v1/images/{image.imageId}") as response:
            assert response.status in {200, 202}
        return read

    monkeypatch.setattr(lost_original.LostOriginals, "header", slow)
    served.sent.clear()
    ((finding,), _) = await audited(served, "outdated=true&repair=true")
    assert finding["repaired"] is False
    assert finding["detail"].endswith("it was deleted meanwhile")
    assert await served.storage.find(older.imageId) is None
    assert [each for each in served.sent if each.topic is UPLOADED] == []


async def test_a_lost_metadata_object_is_no_deletion(served: Web) -> None:
    """It is made again of row, original and vector, word for word."""
    tags = json.dumps({"a": "b"})
    fields = {"uploadedBy": "someone", "tags": tags, "skipDuplicateCheck": "true"}
    answer = await served.upload(PICTURE, "name.jpg", **fields)
    await served.index(answer["imageId"])
    image = await stored(served, answer["imageId"])
    row = served.rows.held[image.imageId]
    row.correlationId = image.correlationId
    await completed(served)
    image.processingOptions.skipDuplicateCheck = False  # which only its upload asked for
    for without_pointer in (False, True):
        await remove(served, image_objects.metadata_key_of(image))
        if without_pointer:
            await remove(served, object_keys.pointer_key(image.imageId))
        findings, total = await audited(served)
        told = {(each["imageId"], each["fault"]) for each in findings}
        assert told == {(image.imageId, "metadata_missing")}
        assert (total["accepted"], total["completed"], total["unknown"]) == (2, 1, 1)
        assert total["balanced"] is False
        findings, total = await audited(served, "repair=true")
        assert [each["repaired"] for each in findings] == [True]
        assert (total["accepted"], total["completed"], total["balanced"]) == (2, 2, True)
        assert (await stored(served, image.imageId)).to_wire() == image.to_wire()
        assert (await audited(served))[0] == []


async def test_what_a_dead_upload_left_goes_to_the_trash(served: Web) -> None:
    """It was killed before its metadata object was there; nobody got an answer."""
    image = await stored(served, await completed(served))
    killed = StoredImage.from_wire(image.to_wire() | {"checksumSha256": 64 * "a"})
    killed.imageId = "img_00000000-0000-4000-8000-000000000001"
    killed.originalKey = image.originalKey.replace(image.imageId[4:], killed.imageId[4:])
    claim = served.claims.pending(killed)
    await served.storage.put_image(killed, b"bytes", claim=claim)
    await remove(served, image_objects.metadata_key_of(killed))
    findings, total = await audited(served, "repair=true")
    assert [each["fault"] for each in findings] == [
        "file_orphaned",
        "claim_orphaned",
        "pointer_orphaned",
    ]
    assert total["accepted"] == 1
    assert (await audited(served))[0] == []
    kept = (await served.services.trash.page(limit=9)).entries
    assert sorted(each.manifest.kind for each in kept) == ["claim", "original", "pointer"]
    (original,) = [each for each in kept if each.manifest.kind == "original"]
    assert await served.services.trash.content(original) == b"bytes"
    said = original.manifest
    assert (said.key, said.tenantId, said.imageId, said.auditId, said.size) == (
        killed.originalKey,
        TENANT,
        killed.imageId,
        total["auditId"],
        5,
    )


async def test_an_original_whose_upload_was_answered_is_no_orphan(served: Web) -> None:
    """Row, vector and metadata object are lost; its claim was confirmed behind the answer."""
    answer = await served.upload(PICTURE)
    await until(lambda: served.acceptance.background.idle)
    image = await stored(served, answer["imageId"])
    await served.storage.delete_metadata(tenant=TENANT, image_id=image.imageId)
    findings, total = await audited(served)
    assert faults(findings) == ["metadata_missing"]
    assert (total["accepted"], total["unknown"]) == (1, 1)
    served.sent.clear()
    findings, total = await audited(served, "repair=true")
    assert (total["accepted"], total["inFlight"], total["balanced"]) == (1, 1, True)
    assert [each.topic for each in served.sent] == [UPLOADED, PROGRESS]
    follow(served)
    again = await stored(served, image.imageId)
    assert (again.uploadedAt, again.originalKey) == (image.uploadedAt, image.originalKey)
    assert (await served.upload(PICTURE))["duplicateOf"] == image.imageId


@pytest.mark.parametrize("tenant", [TENANT, "ghost"])
async def test_vectors_of_every_model_and_tenant_are_somebody_s(served: Web, tenant: str) -> None:
    """Of a model that the system had before; of a tenant of whom storage has nothing.

    A vector alone tells that an image was accepted; what is left of a tenant that was deleted, or
    of an image whose row says so, is nobody's.
    """
    kept = await stored(served, await completed(served))
    stray = "img_00000000-0000-4000-8000-000000000000"
    models = {served.model.name: 2048, "resnet50-old": 4}
    assert served.vectors is not None
    for model, dimension in models.items():
        for image_id in (kept.imageId, stray) if tenant == TENANT else (stray,):
            said = {"imageId": image_id, "uploadedAt": kept.uploadedAt, "tags": {}}
            point = VectorPoint(image_id, np.ones(dimension, np.float32), said)
            await served.vectors.upsert([point], tenant=tenant, model=model)
    for query in ("", "repair=true"):
        findings, total = await audited(served, query)
        assert [(each["tenantId"], each["imageId"], each["fault"]) for each in findings] == [
            (tenant, stray, "metadata_missing")
        ]
        assert (total["accepted"], total["unknown"]) == (2, 1)
    assert "bring its metadata object back from a backup" in findings[0]["detail"]
    if tenant == TENANT:
        served.rows.held[stray] = row_of(stray, "deleted", [])
    else:
        purge = TenantPurge(tenantId=tenant, requestedAt=utc_now(), completedAt=utc_now())
        await served.services.tombstones.put_purge(purge)
    findings, total = await audited(served, "repair=true")
    assert faults(findings) == ["vector_orphaned", "vector_orphaned"]
    for model in models:
        found = await served.vectors.present([kept.imageId, stray], tenant=tenant, model=model)
        assert found == ({kept.imageId} if tenant == TENANT else set())
    trash = (await served.services.trash.page(limit=9)).entries
    assert {(each.manifest.kind, each.manifest.key) for each in trash} == {
        ("vector", model) for model in models
    }
    assert (await audited(served))[0] == []


async def test_what_a_killed_process_had_half_written_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settled, "GRACE_S", 60.0)
    folder = tmp_path / "images"
    async with running(tmp_path, storage_url=folder.as_uri()) as served:
        image = await stored(served, await completed(served))
        key = f"{image.thumbnailKey}#12"
        (half := folder / key).parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(b"half")
        assert (await audited(served))[0] == []  # somebody may be at it
        os.utime(half, (0, 0))
        (finding,), total = await audited(served, "repair=true")
        assert (finding["imageId"], finding["fault"]) == (image.imageId, "write_unfinished")
        assert (finding["detail"], total["repaired"]) == (key, 1)
        assert not half.exists()
        assert await served.storage.find(image.imageId) is not None
        assert (await audited(served))[0] == []


async def test_a_damaged_claim_is_removed(served: Web) -> None:
    await completed(served)
    key = object_keys.claim_key(tenant=TENANT, checksum=64 * "0")
    await served.blobs.put(Write(key, b"{"), action="damage")
    findings, _ = await audited(served, "repair=true")
    assert [each["detail"] for each in findings] == [f"of {64 * '0'}; it cannot be read"]
    assert await served.blobs.get(key, action="look") is None
    assert (await audited(served))[0] == []


async def test_missing_bytes_are_named_and_cannot_be_mended(served: Web) -> None:
    image_id = await completed(served)
    image = await served.storage.find(image_id)
    assert image is not None
    await served.storage.delete_object(tenant=TENANT, key=image.originalKey)
    ((finding,), _) = await audited(served, "repair=true")
    assert finding["fault"] == "original_missing"
    assert finding["repaired"] is False


async def test_an_original_of_other_bytes_is_named_and_cannot_be_mended(served: Web) -> None:
    image = await stored(served, await completed(served))
    other = PICTURE[:-9] + 9 * b"x"
    for data, query in ((b"", ""), (PICTURE[:1000], ""), (PICTURE + b"x", ""), (other, "c")):
        await served.blobs.put(Write(image.originalKey, data), action="damage")
        findings, _ = await audited(served, "repair=true")
        if query:
            assert findings == []  # it has as many bytes
        findings, _ = await audited(served, f"repair=true{'&checksums=true' if query else ''}")
        assert [(each["imageId"], each["fault"], each["repaired"]) for each in findings] == [
            (image.imageId, "original_damaged", False)
        ]
    await served.blobs.put(Write(image.originalKey, PICTURE), action="restore")
    assert (await audited(served, "checksums=true"))[0] == []


async def test_a_damaged_thumbnail_is_made_again(served: Web) -> None:
    image = await stored(served, await completed(served))
    data = await served.storage.get(tenant=TENANT, key=image.thumbnailKey)
    assert data is not None
    for damaged in (b"", data[:-2], data[: len(data) // 2], b"x" * len(data), b"\xff\xd8\xff"):
        await served.blobs.put(Write(image.thumbnailKey, damaged), action="damage")
        served.sent.clear()
        ((finding,), _) = await audited(served, "repair=true")
        assert (finding["fault"], finding["repaired"]) == ("thumbnail_damaged", True)
        assert served.sent[0].topic is UPLOADED
        await served.index(image.imageId)
        assert (await audited(served))[0] == []


async def test_an_upload_that_is_refused_while_it_is_looked_at_is_no_fault(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await stored(served, await completed(served))
    size = type(served.storage).size

    async def refused(self: Any, *, tenant: str, key: str) -> int | None:
        await served.storage.delete_metadata(tenant=TENANT, image_id=image.imageId)
        await served.storage.delete_object(tenant=TENANT, key=image.originalKey)
        return await size(self, tenant=tenant, key=key)

    monkeypatch.setattr(type(served.storage), "size", refused)
    findings, total = await audited(served)
    assert "original_missing" not in faults(findings)
    assert total["accepted"] == 0


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
    served.backlog.behind_s = 600  # who keeps letters has still to read it
    assert (await audited(served))[0] == []


async def test_under_steady_load_what_moved_before_the_watermark_is_lost(served: Web) -> None:
    """Stages are always at something; a picture of which nothing was heard since is none of it."""
    now = datetime.now(UTC)
    served.backlog.behind_s = 600
    ids = [(await served.upload(PICTURE, skipDuplicateCheck="true"))["imageId"] for _ in range(2)]
    for image_id, age_s in zip(ids, (900, 300), strict=True):
        moved = (now - timedelta(seconds=age_s)).isoformat()
        served.rows.held[image_id] = row_of(image_id, "processing", [], lastUpdated=moved)
    failed, letter_id = await fail(served)
    await served.services.letters.remove(letter_id)
    moved = (now - timedelta(seconds=900)).isoformat()
    served.rows.held[failed].lastUpdated = moved
    nobody = "img_00000000-0000-4000-8000-000000000001"
    served.rows.held[nobody] = row_of(nobody, "processing", [], lastUpdated=moved)
    findings, total = await audited(served)
    assert {(each["imageId"], each["fault"]) for each in findings} == {
        (ids[0], "stuck"),
        (failed, "letter_missing"),
        (nobody, "metadata_missing"),
    }
    read_up_to = datetime.fromisoformat(total["readUpTo"])
    assert abs((now - timedelta(seconds=600) - read_up_to).total_seconds()) < 30
    # A stage that is down: whatever waits for it is on its way.
    served.backlog.behind_s = None
    findings, total = await audited(served)
    assert (findings, total["readUpTo"]) == ([], None)


async def test_a_row_that_moves_after_it_was_read_is_not_stuck(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = (await served.upload(PICTURE, skipDuplicateCheck="true"))["imageId"]
    served.rows.held[image_id] = row_of(image_id, "processing", [])
    served.backlog.behind_s = 600
    rows = served.rows.rows

    async def moves_behind(image_ids: Sequence[str]) -> dict[str, ImageRow]:
        found = await rows(image_ids)
        served.backlog.behind_s = 0  # what was to come is read by now, and the row has moved
        return found

    monkeypatch.setattr(served.rows, "rows", moves_behind)
    _, total = await audited(served, f"tenantId={TENANT}")
    assert total["faults"] == {}


async def test_a_missing_thumbnail_is_made_again(served: Web) -> None:
    image = await stored(served, await completed(served))
    plain = await stored(served, await completed(served))
    for each in (image, plain):
        await served.storage.delete_object(tenant=TENANT, key=each.thumbnailKey)
    # Of one there was to be none.
    for step in served.rows.held[plain.imageId].steps:
        if step.step == Step.THUMBNAIL_GENERATION:
            step.status = StepStatus.SKIPPED.value
    served.sent.clear()
    for status in ("completed", "partial"):
        served.rows.held[image.imageId].status = status
        ((finding,), _) = await audited(served)
        assert (finding["imageId"], finding["fault"]) == (image.imageId, "thumbnail_missing")
        assert image.thumbnailKey in finding["detail"]
    ((finding,), _) = await audited(served, "repair=true")
    assert finding["repaired"] is True
    event, _ = served.sent
    assert (event.topic, event.event.generation) == (UPLOADED, 2)
    await served.index(image.imageId)
    assert (await audited(served))[0] == []


async def test_a_pointer_of_no_image_is_removed(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload was killed between its pointer and its metadata object."""
    served.purges = True
    await completed(served, "index")
    gone = await completed(served)
    async with served.client.delete(f"/api/v1/images/{gone}") as response:
        assert response.status == 200
    await until(lambda: not served._work)
    killed = "img_00000000-0000-4000-8000-000000000001"
    pointer = json.dumps({"tenantId": "killed", "uploadedAt": utc_now()}).encode()
    await served.blobs.put(Write(object_keys.pointer_key(killed), pointer), action="cut off")
    findings, _ = await audited(served, f"tenantId={TENANT}")
    assert findings == []  # only everybody's are looked through
    monkeypatch.setattr(settled, "GRACE_S", 60.0)
    assert (await audited(served))[0] == []  # the upload may be at work
    monkeypatch.setattr(settled, "GRACE_S", -1.0)
    (finding,), total = await audited(served, "repair=true")
    assert finding["tenantId"] == "killed"
    assert (finding["imageId"], finding["fault"]) == (killed, "pointer_orphaned")
    assert (total["repaired"], total["balanced"]) == (1, True)
    assert await served.services.inventory.pointer(killed) is None
    assert await served.services.inventory.pointer(gone) is not None
    assert (await audited(served))[0] == []


async def test_an_object_that_cannot_be_read_ends_no_walk(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad part of a disk under one pointer, and under a collection of vectors."""
    image_id, other = await completed(served), await completed(served, "other")
    read, vectors = served.services.inventory.pointer, served.services.vectors
    assert vectors is not None
    page = vectors.page

    async def pointer(asked: str) -> Any:
        if asked == image_id:
            raise broken(StorageUnavailable())
        return await read(asked)

    async def paged(**about: Any) -> Any:
        if about["tenant"] == TENANT:
            raise broken(VectorsUnavailable())
        return await page(**about)

    monkeypatch.setattr(served.services.inventory, "pointer", pointer)
    monkeypatch.setattr(vectors, "page", paged)
    for name in ("present", "models_of", "tenants"):
        findings, total = await audited(served, "repair=true")
        assert {each["fault"] for each in findings} == {"unreadable"}
        assert image_id in {each["imageId"] for each in findings}
        assert other not in {each["imageId"] for each in findings}
        assert total["type"] == "total"

        async def never(*_asked: Any, **_about: Any) -> Any:
            raise broken(VectorsUnavailable())

        monkeypatch.setattr(vectors, name, never)


def broken(error: DependencyUnavailable) -> DependencyUnavailable:
    """Return an error that one object brings about."""
    error.ambiguous = True
    return error


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


async def test_a_damaged_metadata_object_is_made_again(served: Web) -> None:
    image = await stored(served, await completed(served))
    served.rows.held[image.imageId].correlationId = image.correlationId
    await completed(served)
    other = image.to_wire() | {"imageId": "img_00000000-0000-4000-8000-000000000000"}
    image.processingOptions.skipDuplicateCheck = False
    for data in (b"{", b"[]", b"", json.dumps(other).encode()):
        await damage(served, image, data)
        findings, total = await audited(served)
        assert [(each["imageId"], each["fault"]) for each in findings] == [
            (image.imageId, "metadata_damaged")
        ]
        assert (total["accepted"], total["completed"], total["unknown"]) == (2, 1, 1)
        assert total["balanced"] is False
        (finding,), total = await audited(served, "repair=true")
        assert finding["repaired"] is True
        assert (total["accepted"], total["completed"], total["balanced"]) == (2, 2, True)
        assert (await stored(served, image.imageId)).to_wire() == image.to_wire()
    trash = (await served.services.trash.page(limit=9)).entries
    assert [each.manifest.kind for each in trash] == 4 * ["metadata"]
    assert (await audited(served))[0] == []


async def test_what_cannot_be_made_again_stays_and_says_why(served: Web) -> None:
    image = await stored(served, await completed(served))
    await damage(served, image, b"{")
    half = Write(image.originalKey, PICTURE[: len(PICTURE) // 2])
    await until(lambda: served.acceptance.background.idle)
    await remove(served, object_keys.claim_key(tenant=TENANT, checksum=image.checksumSha256))
    for wrong, why in ((half, "bytes"), (Write(image.originalKey, b""), "damaged"), (None, "not")):
        if wrong is None:
            await remove(served, image.originalKey)
        else:
            await served.blobs.put(wrong, action="damage")
        (finding,), total = await audited(served, "repair=true")
        assert (finding["fault"], finding["repaired"]) == ("metadata_damaged", False)
        assert why in finding["detail"]
        assert "from a backup, or delete the image" in finding["detail"]
        assert (total["accepted"], total["unknown"]) == (1, 1)


async def test_pointers_are_made_again(served: Web) -> None:
    """A restore without ``index/``: nothing is an orphan, and nothing is removed."""
    served.purges = True
    images = [await stored(served, await completed(served)) for _ in range(3)]
    failed, _ = await fail(served)
    gone = await completed(served)
    async with served.client.delete(f"/api/v1/images/{gone}") as response:
        assert response.status == 200
    await until(lambda: not served._work)
    ids = [*(each.imageId for each in images), failed, gone]
    elsewhere = {"tenantId": "nobody-else", "uploadedAt": images[0].uploadedAt}
    for data in (None, b"", b"{", b"7", json.dumps(elsewhere).encode()):
        for image_id in ids:
            key = object_keys.pointer_key(image_id)
            if data is None:
                await remove(served, key)
            else:
                await served.blobs.put(Write(key, data), action="damage")
        for query in ("", "repair=true"):
            findings, total = await audited(served, query)
            fault = "pointer_missing" if data is None else "pointer_damaged"
            assert sorted((each["imageId"], each["fault"]) for each in findings) == sorted(
                (image_id, fault) for image_id in ids
            )
            assert (total["accepted"], total["balanced"]) == (5, True)
        assert (await audited(served))[0] == []
    for image in images:
        assert await served.storage.size(tenant=TENANT, key=image.originalKey) is not None
    assert (await served.services.trash.page(limit=9)).entries == []
    assert [each.state async for each in served.services.letters.walk(tenant=TENANT)] == ["waiting"]


async def test_a_letter_is_found_by_its_id_again(served: Web) -> None:
    """Also one that was written again, at another time, where the first one was to be."""
    _, letter_id = await fail(served)
    letter = await served.services.letters.find(letter_id)
    assert letter is not None
    (key,) = [each async for each in served.blobs.walk(f"{TENANT}/failed", action="look")]
    letter.failedAt = "2020-01-01T00:00:00.000Z"
    await served.blobs.put(Write(key, json.dumps(letter.to_wire()).encode()), action="again")
    for data in (None, b"{", json.dumps({"tenantId": "other", "at": letter.failedAt}).encode()):
        pointer = object_keys.letter_pointer_key(letter_id)
        if data is None:
            await remove(served, pointer)
        else:
            await served.blobs.put(Write(pointer, data), action="damage")
        findings, _ = await audited(served, "repair=true")
        assert "pointer_missing" in faults(findings)
        found = await served.services.letters.find(letter_id)
        assert found is not None
        assert found.failedAt == letter.failedAt


async def test_a_purge_goes_on_without_its_pointer(served: Web) -> None:
    image = await stored(served, await completed(served))
    await deletion.begin(image, served.context.services)
    await remove(served, object_keys.pointer_key(image.imageId))
    served.purges = True
    findings, _ = await audited(served, "repair=true")
    assert faults(findings) == ["pointer_missing", "purge_unfinished"]
    await until(lambda: not served._work)
    assert await served.storage.size(tenant=TENANT, key=image.originalKey) is None
    findings, total = await audited(served)
    assert (findings, total["deleted"]) == ([], 1)


async def test_a_letter_of_nobody_is_closed(served: Web) -> None:
    image_id, _ = await fail(served)
    image = await stored(served, image_id)
    await served.storage.delete_metadata(tenant=TENANT, image_id=image_id)
    await remove(served, image.originalKey)
    findings, _ = await audited(served, "repair=true")
    assert faults(findings) == ["metadata_missing"]  # its row tells that it was accepted
    served.rows.held[image_id] = row_of(image_id, "deleted", [])
    findings, _ = await audited(served, "repair=true")
    assert faults(findings) == ["letter_orphaned"]
    (entry,) = [
        each
        for each in (await served.services.trash.page(limit=9)).entries
        if each.manifest.kind == "letter"
    ]
    assert json.loads(await served.services.trash.content(entry))["state"] == "waiting"
    assert (await audited(served))[0] == []


async def test_nothing_is_made_again_of_a_tenant_that_is_deleted_meanwhile(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await stored(served, await completed(served))
    await remove(served, image_objects.metadata_key_of(image))
    write = served.services.inventory.put_image
    served.sent.clear()

    async def put_behind(made: StoredImage, *, replace: bool) -> None:
        """Write it when a purge has looked at everything for the last time."""
        now = utc_now()
        purge = TenantPurge(tenantId=TENANT, requestedAt=now, emptiedAt=now, completedAt=now)
        await served.services.tombstones.put_purge(purge)
        await write(made, replace=replace)

    monkeypatch.setattr(served.services.inventory, "put_image", put_behind)
    findings, _ = await audited(served, "repair=true")
    (finding,) = [each for each in findings if each["fault"] == "metadata_missing"]
    assert "its tenant was deleted meanwhile" in finding["detail"]
    assert await served.blobs.get(image_objects.metadata_key_of(image), action="look") is None
    assert await served.blobs.get(object_keys.pointer_key(image.imageId), action="look") is None
    assert not [each for each in served.sent if each.topic is UPLOADED]


async def test_what_is_of_another_major_version_is_left_to_that_one(served: Web) -> None:
    served.purges = True
    image = await stored(served, await completed(served))
    await fail(served)
    async with served.client.delete(f"/api/v1/images/{await completed(served)}") as response:
        assert response.status == 200
    await until(lambda: not served._work)
    (letter,) = [each async for each in served.blobs.walk(f"{TENANT}/failed", action="look")]
    (grave,) = [each async for each in served.blobs.walk(f"{TENANT}/deleted", action="look")]
    newer = dict[str, bytes]()
    for key in (image_objects.metadata_key_of(image), letter, grave):
        said = json.loads(await served.blobs.get(key, action="look") or b"")
        newer[key] = json.dumps(said | {"schemaVersion": "2.0"}).encode()
        await served.blobs.put(Write(key, newer[key]), action="write it with a newer version")
    findings, total = await audited(served, "repair=true")
    # Of the failed one nobody here can read why.
    assert faults(findings) == ["letter_missing", *3 * ["unreadable"]]
    assert total["accepted"] == 3
    for key, said in newer.items():
        assert await served.blobs.get(key, action="look") == said


async def test_a_letter_stays_whose_image_is_made_again(served: Web) -> None:
    """Neither row nor metadata object nor vector, but the original, whose upload was answered."""
    image_id, letter_id = await fail(served)
    image = await stored(served, image_id)
    await served.services.claims.confirm(image)
    await remove(served, image_objects.metadata_key_of(image))
    del served.rows.held[image_id]
    findings, _ = await audited(served, "repair=true")
    assert faults(findings) == ["metadata_missing"]
    letter = await served.services.letters.find(letter_id)
    assert letter is not None
    assert letter.state == "waiting"


async def test_a_purge_that_was_cut_off_goes_on(served: Web) -> None:
    image_id = await completed(served)
    image = await served.storage.find(image_id)
    assert image is not None
    await deletion.begin(image, served.context.services)
    findings, total = await audited(served)
    assert {each["fault"] for each in findings} == {"purge_unfinished"}
    # Its row still says that it was completed.
    assert (total["accepted"], total["unknown"], total["balanced"]) == (1, 1, False)
    served.purges = True
    _, total = await audited(served, "repair=true")
    assert (total["deleted"], total["balanced"]) == (1, True)
    await until(lambda: not served._work)
    assert [each.topic for each in served.sent if each.topic is DELETED]
    findings, total = await audited(served)
    assert findings == []
    assert (total["accepted"], total["deleted"], total["balanced"]) == (1, 1, True)


async def test_a_row_that_does_not_say_that_its_image_was_deleted_is_told(served: Web) -> None:
    served.purges = True
    row = done_row(await completed(served), models=[served.model.name])
    async with served.client.delete(f"/api/v1/images/{row.imageId}") as response:
        assert response.status == 200
    await until(lambda: not served._work)
    for known in (row, None):
        if known is None:
            del served.rows.held[row.imageId]  # the table lost it
        else:
            served.rows.held[row.imageId] = known
        (finding,), total = await audited(served)
        assert finding["fault"] == "purge_unfinished"
        assert (total["accepted"], total["unknown"], total["balanced"]) == (1, 1, False)
        served.sent.clear()
        await audited(served, "repair=true")
        follow(served)
        findings, total = await audited(served)
        assert (findings, total["deleted"], total["balanced"]) == ([], 1, True)


async def test_an_image_and_its_tombstone_are_one(served: Web) -> None:
    """A deletion was cut off between the tombstone and the metadata object."""
    image = await stored(served, await completed(served))
    tombstone = await deletion.begin(image, served.services)
    await served.blobs.put(Write(*image_objects.metadata_of(image)), action="cut off")
    for data in (None, b"{"):
        if data is not None:
            await damage(served, image, data)
        findings, total = await audited(served)
        assert [each["fault"] for each in findings] == ["purge_unfinished"]
        assert total["accepted"] == 1
    served.purges = True
    await audited(served, "repair=true")
    await until(lambda: not served._work)
    assert await served.storage.find(tombstone.imageId) is None
    findings, total = await audited(served)
    assert (findings, total["accepted"], total["deleted"]) == ([], 1, 1)


async def test_a_damaged_tombstone_is_made_again(served: Web) -> None:
    served.purges = True
    image = await stored(served, await completed(served))
    async with served.client.delete(f"/api/v1/images/{image.imageId}") as response:
        assert response.status == 200
    await until(lambda: not served._work)
    key = image_objects.metadata_key_of(image).replace("/metadata/", "/deleted/")
    raw = await served.blobs.get(key, action="look")
    assert raw is not None
    for said in (None, {"requestedAt": "then"}, {"generation": 10**18}):
        damaged = b"{" if said is None else json.dumps(json.loads(raw) | said).encode()
        await served.blobs.put(Write(key, damaged), action="damage")
        findings, total = await audited(served)
        assert [each["fault"] for each in findings] == ["metadata_damaged"]
        assert (total["accepted"], total["deleted"], total["balanced"]) == (1, 1, True)
        (finding,), total = await audited(served, "repair=true")
        assert finding["repaired"] is True
        await until(lambda: not served._work)
        findings, total = await audited(served)
        assert (findings, total["accepted"], total["deleted"]) == ([], 1, 1)


async def test_a_row_of_nothing_stays_accepted(served: Web) -> None:
    await completed(served)
    nobody = "img_00000000-0000-4000-8000-000000000001"
    # A tenant of which nothing at all is stored.
    served.rows.held[nobody] = row_of(nobody, "processing", [], tenantId="vanished")
    for query in ("", "repair=true", "repair=true"):
        (finding,), total = await audited(served, query)
        assert (finding["tenantId"], finding["imageId"]) == ("vanished", nobody)
        assert (finding["fault"], finding["repaired"]) == ("metadata_missing", False)
        assert (total["accepted"], total["completed"], total["unknown"]) == (2, 1, 1)
        assert total["balanced"] is False
    assert "its original is not there" in finding["detail"]
    findings, mine = await audited(served, f"tenantId={TENANT}")
    assert (findings, mine["accepted"], mine["balanced"]) == ([], 1, True)


async def test_a_row_of_a_deleted_tenant_is_ended(served: Web) -> None:
    image_id = "img_00000000-0000-4000-8000-000000000001"
    served.rows.held[image_id] = row_of(image_id, "completed", [], tenantId="vanished")
    purge = TenantPurge(tenantId="vanished", requestedAt=utc_now())
    await served.services.tombstones.put_purge(purge)
    assert (await audited(served))[0] == []  # it will come to it
    purge.completedAt = utc_now()
    await served.services.tombstones.put_purge(purge)
    (finding,), total = await audited(served)
    assert finding["fault"] == "row_orphaned"
    assert (total["accepted"], total["completed"], total["balanced"]) == (0, 1, False)
    _, total = await audited(served, "repair=true")
    assert (total["completed"], total["balanced"]) == (0, True)
    assert served.sent[-1].event.data.ending == "purged"


async def test_a_row_that_may_move_is_no_orphan(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = "img_00000000-0000-4000-8000-000000000001"
    served.rows.held[image_id] = row_of(image_id, "processing", [])
    served.backlog.behind_s = None  # its end may wait to be read
    assert (await audited(served))[0] == []
    served.backlog.behind_s = 0

    async def ended_meanwhile(_image_ids: Sequence[str]) -> dict[str, ImageRow]:
        return {image_id: row_of(image_id, "deleted", [], lastUpdated="2026-01-01T00:00:00Z")}

    monkeypatch.setattr(served.rows, "rows", ended_meanwhile)
    assert (await audited(served))[0] == []


async def test_a_stranger_s_row_is_not_the_image_s(served: Web) -> None:
    image_id = await completed(served)
    served.rows.held[image_id].tenantId = "stranger"
    (finding,), total = await audited(served, "repair=true")
    assert (finding["imageId"], finding["fault"]) == (image_id, "stuck")
    assert (total["accepted"], total["inFlight"], total["balanced"]) == (1, 1, True)
    assert served.sent[-2].topic is UPLOADED


async def test_an_image_whose_row_says_deleted_gets_another(served: Web) -> None:
    """Nobody has deleted it: storage was restored behind its stages' backs."""
    image_id = await completed(served)
    served.rows.held[image_id] = row_of(image_id, "deleted", [], ending="dropped")
    (finding,), total = await audited(served)
    assert finding["fault"] == "stuck"
    assert (total["accepted"], total["deleted"], total["unknown"]) == (1, 0, 1)
    served.sent.clear()
    (finding,), total = await audited(served, "repair=true")
    assert (finding["repaired"], total["inFlight"], total["balanced"]) == (True, 1, True)
    assert [each.topic for each in served.sent] == [PROGRESS, UPLOADED, PROGRESS]
    assert served.sent[0].event.data.ending == "purged"


@pytest.mark.parametrize("ending", ["deleted", None])
async def test_what_a_person_deleted_does_not_come_back(served: Web, ending: str | None) -> None:
    """Storage is older than Kafka: it has the image, and neither a tombstone nor who asked."""
    image_id = await completed(served)
    served.rows.held[image_id] = row_of(image_id, "deleted", [], ending=ending)
    served.sent.clear()
    (finding,), total = await audited(served, "repair=true")
    assert (finding["fault"], finding["repaired"]) == ("stuck", False)
    assert "delete it again" in finding["detail"]
    assert (total["accepted"], total["unknown"], total["balanced"]) == (1, 1, False)
    assert served.sent == []
    async with served.client.delete(f"/api/v1/images/{image_id}") as response:
        assert response.status in (200, 202)
    assert await served.storage.find(image_id) is None


async def test_an_audit_streams_in_pages(served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ledger, orphans, sightings):
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
    assert [each["fault"] for each in findings] == ["metadata_missing"]
    assert total["completed"] == 5


async def test_a_table_of_which_a_part_is_missing_is_not_compared(served: Web) -> None:
    await completed(served)
    served.tables.owners[1] = "http://there"
    recovering = Partition(1, "http://there", "recovering", 5, 1000, 3)
    for others in ([], [TableShard([recovering], [])]):
        served.tables.others = others
        async with served.client.post(AUDIT) as response:
            (line,) = await lines_of(response)
        assert (line["type"], line["errorCode"]) == ("error", "ROW_MOVING")


async def test_a_silent_audit_says_how_far_it_is(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_audit, "_SILENCE_S", 0.01)
    for _ in range(3):
        await completed(served)
    go_on, begun, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    walk_files = type(served.storage).walk_files

    async def slowly(self: Any, *, tenant: str) -> AsyncGenerator[tuple[str, str]]:
        begun.set()
        try:
            await go_on.wait()
        finally:
            ended.set()
        async for each in walk_files(self, tenant=tenant):
            yield each

    monkeypatch.setattr(type(served.storage), "walk_files", slowly)
    async with served.client.post(AUDIT) as response:
        # Metadata objects, and then vectors; the rows of all, before them, are nobody's alone.
        while (line := json.loads(await response.content.readline()))["checked"] < 6:
            assert line.keys() == {"type", "tenantId", "checked"}
            assert (line["type"], line["tenantId"]) in {("progress", TENANT), ("progress", None)}
        assert json.loads(await response.content.readline()) == line
        assert line == {"type": "progress", "tenantId": TENANT, "checked": 6}
        go_on.set()
        lines = await lines_of(response)
    assert lines[-1]["type"] == "total"
    for each in (go_on, begun, ended):
        each.clear()
    async with served.client.post(AUDIT) as response:
        while json.loads(await response.content.readline()) != line:
            pass
        await begun.wait()
        response.close()
    # Whoever hangs up ends it, also while it is at work.
    async with asyncio.timeout(10):
        await ended.wait()


async def test_an_audit_goes_on_when_rows_have_moved(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rebalance while all rows are read, and one while rows are asked for by their IDs."""
    monkeypatch.setattr(patient_rows, "PAGE", 2)
    await completed(served)
    lost = [f"img_00000000-0000-4000-8000-{number:012x}" for number in range(7)]
    served.rows.held |= {each: row_of(each, "completed", []) for each in lost}
    page, rows = served.tables.page, served.rows.rows
    asked: list[str | None] = []
    refused: list[Sequence[str]] = []

    async def moves(name: str, *, limit: int, after: str | None) -> TablePage:
        is_read = limit > 1  # else it is only looked at where rows are
        asked.extend([after] if is_read else [])
        away = {1: None} if is_read and len(asked) == 3 else {}
        served.tables.owners = {0: "http://here", **away}
        return await page(name, limit=limit, after=after)

    async def settles(image_ids: Sequence[str]) -> dict[str, ImageRow]:
        if image_ids not in refused:  # so each question has to be asked twice
            refused.append(image_ids)
            raise RowMoving
        return await rows(image_ids)

    monkeypatch.setattr(served.tables, "page", moves)
    monkeypatch.setattr(served.rows, "rows", settles)
    findings, total = await audited(served)
    missing = [each["imageId"] for each in findings if each["fault"] == "metadata_missing"]
    assert sorted(missing) == lost
    assert (total["accepted"], total["completed"]) == (1 + len(lost), 1)
    assert asked.count(lost[3]) == 2
    assert len(refused) > len(lost)


async def test_while_rows_move_the_audit_says_that_it_cannot_go_on(served: Web) -> None:
    await completed(served)
    served.rows.moving = True  # and it stays so
    async with served.client.post(AUDIT) as response:
        lines = await lines_of(response)
    assert lines[-1]["type"] == "error"
    assert lines[-1]["errorCode"] == "ROW_MOVING"


@pytest.mark.parametrize("query", ["tenantId=A", "repair=x", "checksums=1"])
async def test_bad_questions(served: Web, query: str) -> None:
    async with served.client.post(f"{AUDIT}?{query}") as response:
        assert response.status == 400
