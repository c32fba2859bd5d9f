"""What a repair took away is listed, comes back, and goes with its age."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from obstore.exceptions import PermissionDeniedError

from deeplens_streams.audit import settled
from deeplens_streams.deletion import trash as trash_module
from deeplens_streams.deletion.trash import EmptyingTrash
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.errors import storage_faults
from deeplens_streams.storage.blobs.store import Blobs, Write
from deeplens_streams.web.openapi import components
from models.deletion import TenantPurge
from models.events import utc_now
from tests.support.audits import audited, completed, remove, stored
from tests.support.shells import Shell, shell, web
from tests.support.web_server import TENANT, Web, row_of, running

__all__ = ["shell", "web"]  # fixtures

TRASH = "/api/v1/admin/trash"


@pytest.fixture(autouse=True)
def _everything_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settled, "GRACE_S", -1.0)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path) as found:
        yield found


async def thrown(served: Web) -> dict[str, Any]:
    """Have a repair take away original, thumbnail, vector and pointer; return them by kind."""
    image = await stored(served, await completed(served))
    await served.storage.remove_metadata(image)
    # Its row says that it was deleted, and no tombstone does.
    served.rows.held[image.imageId] = row_of(image.imageId, "deleted", [])
    await audited(served, "repair=true")
    return {each["kind"]: each for each in (await listed(served))["entries"]}


async def listed(served: Web, query: str = "") -> dict[str, Any]:
    async with served.client.get(f"{TRASH}?{query}") as response:
        assert response.status == 200
        answer: dict[str, Any] = await response.json()
        return answer


async def restored(served: Web, trash_id: str, query: str = "", status: int = 200) -> Any:
    async with served.client.post(f"{TRASH}/{trash_id}/restore?{query}") as response:
        assert response.status == status, await response.text()
        return await response.json()


async def test_what_is_of_no_image_says_so_and_an_entry_has_the_fields_of_its_document(
    served: Web,
) -> None:
    key = f"{TENANT}/checksum/ab/{'ab' * 32}.json"
    await served.blobs.put(Write(key, b'{"no'), action="damage")
    await audited(served, "repair=true")
    (entry,) = (await listed(served))["entries"]
    assert (entry["kind"], entry["key"], entry["imageId"]) == ("claim", key, None)
    assert entry.keys() == components.named()["TrashEntry"]["properties"].keys()


async def test_everything_comes_back_as_it_was(served: Web) -> None:
    kept = await thrown(served)
    assert kept.keys() >= {"original", "thumbnail", "vector", "pointer"}
    image_id = kept["vector"]["imageId"]
    assert served.vectors is not None
    place = {"tenant": TENANT, "model": served.model.name}
    assert await served.vectors.present([image_id], **place) == set()
    for entry in kept.values():
        answer = await restored(served, entry["trashId"])
        assert answer["entry"] == entry
        await restored(served, entry["trashId"], status=404)
    point = await served.vectors.get_point(**place, image_id=image_id)
    assert point is not None
    assert abs(float(np.linalg.norm(point.vector)) - 1) < 1e-5
    assert point.payload["imageId"] == image_id
    for kind in ("original", "thumbnail", "pointer"):
        data = await served.blobs.get(kept[kind]["key"], action="look")
        assert data is not None
        assert len(data) == kept[kind]["size"]
    assert (await listed(served))["entries"] == []


async def test_what_is_there_by_now_is_replaced_only_if_asked_for(served: Web) -> None:
    kept = await thrown(served)
    key = kept["original"]["key"]
    await served.blobs.put(Write(key, b"new"), action="test")
    answer = await restored(served, kept["original"]["trashId"], status=409)
    assert answer["errorCode"] == "TRASH_OCCUPIED"
    await restored(served, kept["original"]["trashId"], "replace=true")
    replaced = [each for each in (await listed(served))["entries"] if each["kind"] == "replaced"]
    assert [each["key"] for each in replaced] == [key]
    await restored(served, kept["vector"]["trashId"])
    await audited(served, "repair=true")
    again = next(each for each in (await listed(served))["entries"] if each["kind"] == "vector")
    await served.blobs.put(Write(_bytes_of(again), b"{}"), action="damage")
    answer = await restored(served, again["trashId"], status=409)
    assert answer["errorCode"] == "TRASH_DAMAGED"


def _bytes_of(entry: dict[str, Any]) -> str:
    tenant, image, name = entry["trashId"].split(".")
    return f"{object_keys.TRASH}/{tenant}/{image[:2]}/{image}/{name}.bin"


async def test_it_is_emptied_one_by_one_by_age_and_by_itself(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await thrown(served)
    async with served.client.delete(f"{TRASH}/{kept['pointer']['trashId']}") as response:
        assert (response.status, (await response.json())["entry"]) == (200, kept["pointer"])
    for query, status in (
        ("", 400),
        ("olderThanDays=x", 400),
        ("olderThanDays=", 400),
        ("olderThanDays=1", 200),
    ):
        async with served.client.delete(f"{TRASH}?{query}") as response:
            assert response.status == status
    assert len((await listed(served))["entries"]) == len(kept) - 1
    emptying = EmptyingTrash(served.services)
    await emptying.empty()
    assert len((await listed(served, f"tenantId={TENANT}"))["entries"]) == len(kept) - 1
    # Days later.
    monkeypatch.setattr(
        trash_module, "before_ms", lambda _days: object_keys.epoch_ms(utc_now()) + 1
    )
    await emptying.empty()
    assert (await listed(served))["entries"] == []
    assert [each async for each in served.blobs.walk(object_keys.TRASH, action="look")] == []
    await thrown(served)
    async with served.client.delete(f"{TRASH}?olderThanDays=0&tenantId={TENANT}") as response:
        answer = await response.json()
    assert (answer["removed"] > 0, answer["more"]) == (True, False)
    assert (await listed(served))["entries"] == []


async def test_a_tenant_s_purge_takes_its_trash(served: Web) -> None:
    served.purges = True
    await thrown(served)
    async with served.client.delete(f"/api/v1/admin/tenants/{TENANT}?confirm={TENANT}") as response:
        assert response.status == 202
    await served.settled()
    assert (await listed(served))["entries"] == []
    assert [each async for each in served.blobs.walk(object_keys.TRASH, action="look")] == []


async def test_nothing_is_kept_of_a_tenant_that_is_going(served: Web) -> None:
    image = await stored(served, await completed(served))
    await remove(served, image.thumbnailKey)
    await served.storage.remove_metadata(image)
    served.rows.held[image.imageId] = row_of(image.imageId, "deleted", [])
    purge = TenantPurge(tenantId=TENANT, requestedAt=utc_now())
    await served.services.tombstones.put_purge(purge)
    findings, _ = await audited(served, f"repair=true&tenantId={TENANT}")
    assert findings == []
    assert (await listed(served))["entries"] == []


async def test_the_command_lists_restores_and_empties(shell: Shell, web: Web) -> None:
    ended = await shell("trash", "list")
    assert (ended.code, ended.out) == (0, "There is nothing.\n")
    kept = await thrown(web)
    ended = await shell("trash", "list", "--tenant", TENANT)
    assert ended.code == 0
    assert all(kind in ended.out for kind in kept)
    original, vector = kept["original"]["trashId"], kept["vector"]["trashId"]
    ended = await shell("trash", "restore", original)
    assert (ended.code, kept["original"]["key"] in ended.out) == (0, True)
    ended = await shell("trash", "restore", original)
    assert ended.code == 1
    ended = await shell("trash", "empty", vector)
    assert (ended.code, ended.out) == (0, "1 removed.\n")
    ended = await shell("trash", "empty", "--older-than", "0")
    assert (ended.code, ended.out) == (0, f"{len(kept) - 2} removed.\n")
    for arguments in ((), (original, "--older-than", "0"), (original, "--tenant", TENANT)):
        ended = await shell("trash", "empty", *arguments)
        assert ended.code == 2


async def test_what_cannot_be_removed_is_named(
    shell: Shell, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await thrown(web)
    tenant, image, name = kept["original"]["trashId"].split(".")
    locked = f".trash/{tenant}/{image[:2]}/{image}/{name}.json"
    delete = Blobs.delete

    async def refused(self: Blobs, key: str, *, action: str) -> None:
        if key == locked:
            with storage_faults(action):
                raise PermissionDeniedError("AccessDenied: the object is locked")
        await delete(self, key, action=action)

    monkeypatch.setattr(type(web.blobs), "delete", refused)
    breaker = web.services.breakers["storage"]
    monkeypatch.setattr(breaker, "ping", web.storage.ping)
    async with web.client.delete(f"{TRASH}?olderThanDays=1") as response:
        assert (await response.json())["notRemoved"] == 0
    ended = await shell("trash", "empty", "--older-than", "0")
    assert (ended.code, ended.out) == (1, f"{len(kept) - 1} removed.\n")
    assert f"1 things stay, such as {locked}: The image storage refuses access" in ended.err
    assert set((await listed(web))["entries"][0]) >= {"trashId"}
