"""The audit counts what tenants have anew, and looks at what storage keeps of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deeplens_streams.audit import rows, settled
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import Write
from tests.support.audits import audited, completed, follow, stored
from tests.support.web_server import TENANT, Web, running

TENANTS = "/api/v1/admin/tenants"
KEPT = object_keys.registry_key(TENANT)


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Web]:
    monkeypatch.setattr(settled, "GRACE_S", -1.0)
    for name in ("PATIENCE_S", "_LOOK_S"):
        monkeypatch.setattr(rows, name, 0.0)
    async with running(tmp_path) as found:
        async with found.client.post(TENANTS, json={"tenantId": TENANT}) as response:
            assert response.status == 201
        yield found


async def counted(served: Web) -> int:
    """Have a picture be there that counts for its tenant; return its size."""
    image_id = await completed(served)
    image, row = await stored(served, image_id), served.rows.held[image_id]
    row.fileSize, row.countedAt = image.fileSize, 0
    await served.count(row, 1)
    return image.fileSize


async def usage(served: Web) -> tuple[int, int]:
    async with served.client.get(f"{TENANTS}/{TENANT}/usage") as response:
        answer: dict[str, Any] = await response.json()
        return answer["images"], answer["bytes"]


async def test_usage_that_is_wrong_is_found_and_set(served: Web) -> None:
    size = await counted(served) + await counted(served)
    assert (await audited(served))[0] == []
    served.tenants[TENANT.encode()].usage.images = 480
    (found,), total = await audited(served)
    assert (found["fault"], found["tenantId"], found["repaired"]) == ("usage_wrong", TENANT, False)
    assert found["detail"].startswith("the registry has 480 images")
    assert total["balanced"]
    (found,), _ = await audited(served, f"repair=true&tenantId={TENANT}")
    assert found["repaired"]
    assert await usage(served) == (2, size)
    assert (await audited(served))[0] == []


async def test_usage_is_no_less_than_nothing(served: Web) -> None:
    served.tenants[TENANT.encode()].usage.images = -3
    assert await usage(served) == (0, 0)
    assert [each["fault"] for each in (await audited(served, "repair=true"))[0]] == ["usage_wrong"]
    await counted(served)
    assert (await usage(served))[0] == 1


async def test_a_picture_that_is_in_no_sum_is_counted(served: Web) -> None:
    image_id = await completed(served)
    (found,), _ = await audited(served, "repair=true")
    assert (found["fault"], found["imageId"]) == ("usage_wrong", image_id)
    follow(served)
    assert served.rows.held[image_id].fileSize == (await stored(served, image_id)).fileSize


@pytest.mark.parametrize("said", [None, b"", b'{"tenantId": "demo"', b"[]"])
async def test_what_storage_keeps_of_a_tenant_is_written_again(
    served: Web, said: bytes | None
) -> None:
    kept = await served.blobs.get(KEPT, action="look at it")
    await served.blobs.delete(KEPT, action="damage it")
    if said is not None:
        await served.blobs.put(Write(KEPT, said), action="damage it")
    (found,), _ = await audited(served)
    assert (found["fault"], found["tenantId"]) == ("registry_damaged", TENANT)
    (found,), _ = await audited(served, "repair=true")
    assert found["repaired"]
    assert (await audited(served))[0] == []
    assert await served.blobs.get(KEPT, action="look at it") == kept


async def test_a_damaged_proof_of_a_deletion_is_a_finding_and_no_end(served: Web) -> None:
    """Also of a tenant of which storage keeps nothing else."""
    for tenant in (TENANT, "gone"):
        await served.blobs.put(Write(object_keys.purge_key(tenant), b""), action="cut the power")
    await served.services.tenant_records.list_purged()
    await served.blobs.delete(KEPT, action="lose it")
    findings, total = await audited(served, "repair=true")
    assert [(each["fault"], each["tenantId"], each["repaired"]) for each in findings] == [
        ("registry_damaged", TENANT, False),
        ("registry_damaged", "gone", False),
    ]
    assert total["type"] == "total"


@pytest.mark.parametrize("said", ["", "yesterday", "2026-01-01T00:00:00"])
async def test_a_row_with_a_time_that_is_none_ends_no_recount(served: Web, said: str) -> None:
    await counted(served)
    image_id = await completed(served)
    served.rows.held[image_id].lastUpdated = said
    findings, total = await audited(served)
    assert {(each["fault"], each["imageId"]) for each in findings} >= {("unreadable", image_id)}
    assert total["type"] == "total"


async def test_a_damaged_object_of_nobody_is_a_finding_and_no_end(served: Web) -> None:
    await served.blobs.put(Write(object_keys.registry_key("lost"), b"{"), action="damage it")
    (found,), total = await audited(served, "repair=true")
    assert (found["tenantId"], found["repaired"]) == ("lost", False)
    assert total["type"] == "total"
