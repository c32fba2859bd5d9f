"""A claim that is lost is written again, so that the same bytes stay a duplicate."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deeplens_streams.audit import settled
from deeplens_streams.storage import image_objects, object_keys
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.storage.duplicate_claims import DuplicateClaims
from models.images import StoredImage
from tests.support.audits import PICTURE, audited, damage, remove, stored
from tests.support.web_server import TENANT, Web, row_of, running, until


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Web]:
    monkeypatch.setattr(settled, "GRACE_S", -1.0)
    async with running(tmp_path) as found:
        yield found


async def claimed(served: Web, **fields: str) -> StoredImage:
    """Return an image that is completed and has its claim."""
    answer = await served.upload(PICTURE, **fields)
    await served.index(answer["imageId"])
    await until(lambda: served.acceptance.background.idle)
    return await stored(served, answer["imageId"])


def key_of(image: StoredImage) -> str:
    return object_keys.claim_key(tenant=TENANT, checksum=image.checksumSha256)


def told(findings: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    return [(each["imageId"], each["fault"], each["repaired"]) for each in findings]


async def test_a_lost_claim_is_written_again(served: Web) -> None:
    image = await claimed(served)
    await remove(served, key_of(image))
    findings, total = await audited(served)
    assert told(findings) == [(image.imageId, "claim_missing", False)]
    assert total["balanced"] is True
    findings, _ = await audited(served, "repair=true")
    assert told(findings) == [(image.imageId, "claim_missing", True)]
    assert (await served.upload(PICTURE))["duplicateOf"] == image.imageId
    assert (await audited(served))[0] == []


@pytest.mark.parametrize("also", ["", "metadata", "lost metadata"])
async def test_a_damaged_claim_is_written_again(served: Web, also: str) -> None:
    image = await claimed(served)
    await served.blobs.put(Write(key_of(image), b"{"), action="damage")
    if also == "metadata":
        await damage(served, image)
    elif also:
        await remove(served, image_objects.metadata_key_of(image))
    assert "claim_orphaned" in {fault for _, fault, _ in told((await audited(served))[0])}
    findings, _ = await audited(served, "repair=true")
    assert all(repaired for _, _, repaired in told(findings))
    assert (await served.upload(PICTURE))["duplicateOf"] == image.imageId
    assert (await audited(served))[0] == []
    entries = (await served.services.trash.page(limit=9)).entries
    (kept,) = [each for each in entries if each.manifest.kind == "claim"]
    assert await served.services.trash.content(kept) == b"{"


async def test_an_upload_that_takes_it_meanwhile_keeps_it(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repair has looked, and found no claim, when the same bytes are uploaded."""
    image = await claimed(served)
    await remove(served, key_of(image))
    find, answers = DuplicateClaims.find, list[dict[str, Any]]()

    async def overtaken(self: DuplicateClaims, **which: str) -> Any:
        found = await find(self, **which)
        if not answers:
            answers.append({})
            answers[0] = await served.upload(PICTURE)
            await until(lambda: served.acceptance.background.idle)
        return found

    ((finding,), _) = await audited(served)
    assert finding["fault"] == "claim_missing"
    # The first look finds nothing; it is the repair's that is overtaken.
    confirm = DuplicateClaims.confirm

    async def confirming(self: DuplicateClaims, which: StoredImage) -> None:
        if which.imageId == image.imageId:
            monkeypatch.setattr(DuplicateClaims, "find", overtaken)
        await confirm(self, which)

    monkeypatch.setattr(DuplicateClaims, "confirm", confirming)
    findings, _ = await audited(served, "repair=true")
    assert (image.imageId, "claim_missing", True) in told(findings)
    other = answers[0]["imageId"]
    claim = await find(served.services.claims, tenant=TENANT, checksum=image.checksumSha256)
    assert claim is not None
    assert (claim.image_id, claim.confirmed) == (other, True)
    await served.index(other)
    assert (await audited(served))[0] == []


async def test_who_counts_on_no_claim_needs_none(served: Web) -> None:
    """Of an image that failed the same bytes are another image, with a claim as without one."""
    image = await claimed(served, skipDuplicateCheck="true")
    await remove(served, key_of(image))
    assert (await audited(served))[0] == []
    failed = await claimed(served)
    await remove(served, key_of(failed))
    served.rows.held[failed.imageId] = row_of(failed.imageId, "failed", [])
    assert "claim_missing" not in {fault for _, fault, _ in told((await audited(served))[0])}


async def test_of_bytes_that_are_lost_no_claim_is_made(served: Web) -> None:
    """Who has them uploads them again, and is to get an image that has them."""
    image = await claimed(served)
    for key in (key_of(image), image.originalKey):
        await remove(served, key)
    findings, _ = await audited(served, "repair=true")
    assert told(findings) == [(image.imageId, "original_missing", False)]
    assert (await served.upload(PICTURE))["duplicateOf"] is None


async def test_what_is_deleted_meanwhile_has_no_claim(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.purges = True
    image = await claimed(served)
    await remove(served, key_of(image))
    confirm = DuplicateClaims.confirm

    async def late(self: DuplicateClaims, which: StoredImage) -> None:
        async with served.client.delete(f"/api/v1/images/{image.imageId}") as response:
            assert response.status == 200
        await confirm(self, which)

    monkeypatch.setattr(DuplicateClaims, "confirm", late)
    await audited(served, "repair=true")
    assert await served.blobs.get(key_of(image), action="look") is None
    monkeypatch.undo()
    monkeypatch.setattr(settled, "GRACE_S", -1.0)
    assert (await audited(served))[0] == []
