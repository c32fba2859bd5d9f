"""What is in the trash comes back as it was, and nothing leaves its place before it is there."""

import asyncio
import hashlib

import pytest

from deeplens_streams.errors import BadRequest
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.storage import Blobs, object_keys
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.storage.trash import Reason, Trash, TrashOccupied, WrittenMeanwhile
from deeplens_streams.storage.trash_entries import TrashDamaged, TrashEntry
from models.events import utc_now
from models.trash import TrashKind, TrashManifest
from tests.support.stored_images import blobs, url

__all__ = ["blobs", "url"]  # fixtures: memory, a folder and S3

WHY = Reason("a test", "audit-1")


async def thrown(trash: Trash, blobs: Blobs, *, tenant: str = "acme", data: bytes = b"x") -> str:
    """Put an original in its place, and move it to the trash; return its image."""
    image_id = new_image_id()
    key = original(tenant, image_id)
    await blobs.put(Write(key, data), action="test")
    moved = await trash.move(
        key, kind=TrashKind.ORIGINAL, tenant=tenant, image_id=image_id, why=WHY
    )
    assert moved
    assert await blobs.get(key, action="test") is None
    return image_id


def original(tenant: str, image_id: str) -> str:
    return f"{tenant}/original/2026-01-01/{image_id[4:]}.jpg"


async def only(trash: Trash) -> TrashEntry:
    (entry,) = (await trash.page(limit=9)).entries
    return entry


async def test_it_comes_back_to_where_it_lay(blobs: Blobs) -> None:
    trash, data = Trash(blobs), b"picture" * 100_000
    image_id = await thrown(trash, blobs, data=data)
    entry = await only(trash)
    said, key = entry.manifest, original("acme", image_id)
    assert (said.kind, said.key, said.tenantId, said.imageId) == ("original", key, "acme", image_id)
    assert (said.reason, said.auditId, said.size) == ("a test", "audit-1", len(data))
    assert said.sha256 == hashlib.sha256(data).hexdigest()
    assert await trash.content(entry) == data
    found = await trash.find(entry.entry_id)
    assert found is not None
    assert found.manifest.to_wire() == said.to_wire()
    await trash.restore(entry, replace=False, why=WHY)
    assert await blobs.get(key, action="test") == data
    assert (await trash.page(limit=9)).entries == []
    assert await trash.find(entry.entry_id) is None
    assert [each async for each in blobs.walk(object_keys.TRASH, action="test")] == []


async def test_what_lies_there_by_now_is_replaced_only_if_asked_for(blobs: Blobs) -> None:
    trash = Trash(blobs)
    image_id = await thrown(trash, blobs, data=b"old")
    entry, key = await only(trash), original("acme", image_id)
    await blobs.put(Write(key, b"new"), action="test")
    with pytest.raises(TrashOccupied):
        await trash.restore(entry, replace=False, why=WHY)
    assert await blobs.get(key, action="test") == b"new"
    await trash.restore(entry, replace=True, why=WHY)
    assert await blobs.get(key, action="test") == b"old"
    replaced = await only(trash)
    assert (replaced.manifest.kind, await trash.content(replaced)) == ("replaced", b"new")


async def test_what_is_damaged_in_the_trash_stays_there(blobs: Blobs) -> None:
    trash = Trash(blobs)
    image_id = await thrown(trash, blobs, data=b"picture")
    entry = await only(trash)
    kept = entry.manifest_key.replace(".json", ".bin")
    for data in (b"pict", b"", None):
        if data is None:
            await blobs.delete(kept, action="lose")
        else:
            await blobs.put(Write(kept, data), action="damage")
        with pytest.raises(TrashDamaged):
            await trash.restore(entry, replace=True, why=WHY)
        with pytest.raises(TrashDamaged):
            await trash.content(entry)
    assert await blobs.get(original("acme", image_id), action="test") is None
    await blobs.put(Write(entry.manifest_key, b"{"), action="damage")
    assert (await trash.page(limit=9)).entries == []
    assert await trash.find(entry.entry_id) is None


async def test_what_is_gone_cannot_be_moved(blobs: Blobs) -> None:
    trash, image_id = Trash(blobs), new_image_id()
    assert not await trash.move(
        original("acme", image_id),
        kind=TrashKind.ORIGINAL,
        tenant="acme",
        image_id=image_id,
        why=WHY,
    )
    assert (await trash.page(limit=9)).entries == []


@pytest.mark.parametrize("moment", ["judged", "copied"])
async def test_what_is_written_meanwhile_stays(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """As an upload does that takes over a claim of nobody's."""
    trash, image_id = Trash(blobs), new_image_id()
    key = object_keys.claim_key(tenant="acme", checksum=64 * "a")
    await blobs.put(Write(key, b"old"), action="test")
    put_manifest = Trash._put_manifest

    async def behind(self: Trash, manifest_key: str, said: TrashManifest) -> None:
        await put_manifest(self, manifest_key, said)
        await blobs.put(Write(key, b"new"), action="test")

    if moment == "judged":
        await blobs.put(Write(key, b"new"), action="test")
    else:
        monkeypatch.setattr(Trash, "_put_manifest", behind)
    with pytest.raises(WrittenMeanwhile):
        await trash.move(
            key, kind=TrashKind.CLAIM, tenant="acme", image_id=image_id, why=WHY, known=b"old"
        )
    assert await blobs.get(key, action="test") == b"new"
    assert [each async for each in blobs.walk(object_keys.TRASH, action="test")] == []


async def test_it_is_listed_in_pages(blobs: Blobs) -> None:
    trash = Trash(blobs)
    for tenant in ("acme", "beta", "acme", "index", "acme"):
        await thrown(trash, blobs, tenant=tenant)
    await trash.keep(
        b"a", "m", kind=TrashKind.CLAIM, tenant="", image_id=object_keys.NO_IMAGE, why=WHY
    )
    expected: dict[str | None, int] = {None: 6, "acme": 3, "nobody": 0}
    for owner, count in expected.items():
        for limit in (1, 2, 9):
            found, cursor = list[str](), None
            while True:
                page = await trash.page(tenant=owner, limit=limit, cursor=cursor)
                assert len(page.entries) <= limit
                found += [each.entry_id for each in page.entries]
                cursor = page.cursor
                if cursor is None:
                    break
            assert len(found) == len(set(found)) == count
    for bad in ("x", "../..", found[0] if found else "acme.."):
        with pytest.raises(BadRequest):
            await trash.page(limit=1, cursor=bad)
    other = (await trash.page(tenant="beta", limit=1)).entries[0].entry_id
    with pytest.raises(BadRequest):
        await trash.page(tenant="acme", limit=1, cursor=other)


async def test_it_is_emptied_by_age_and_by_tenant(blobs: Blobs) -> None:
    trash = Trash(blobs)
    for tenant in ("acme", "beta", "acme"):
        await thrown(trash, blobs, tenant=tenant)
    await asyncio.sleep(0.002)
    now = object_keys.epoch_ms(utc_now())
    assert await trash.empty(before_ms=now - 60_000) == 0
    assert await trash.empty(before_ms=now, tenant="beta") == 1
    assert [each.manifest.tenantId for each in (await trash.page(limit=9)).entries] == 2 * ["acme"]
    assert await trash.empty(before_ms=now, most=1) == 1
    assert await trash.empty(before_ms=now) == 1
    assert [each async for each in blobs.walk(object_keys.TRASH, action="test")] == []


async def test_a_deleted_image_s_trash_goes_with_it(blobs: Blobs) -> None:
    trash = Trash(blobs)
    gone, kept = await thrown(trash, blobs), await thrown(trash, blobs)
    await trash.remove_image(tenant="acme", image_id=gone)
    assert [each.manifest.imageId for each in (await trash.page(limit=9)).entries] == [kept]
    await trash.remove_image(tenant="acme", image_id=gone)
