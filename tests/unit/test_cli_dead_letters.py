"""``deeplens dead-letters`` and ``deeplens delete`` against the real web layer."""

import json

import pytest

from deeplens_streams.audit import rows, settled
from deeplens_streams.errors import UndecodableImage
from deeplens_streams.web.handlers import deletion
from tests.support.dead_letters import fail
from tests.support.photographs import photograph
from tests.support.shells import NOBODY, Shell, shell, web
from tests.support.web_server import TENANT, Web, until

__all__ = ["shell", "web"]  # fixtures


async def test_letters_are_listed_shown_retried_and_discarded(shell: Shell, web: Web) -> None:
    image_id, letter_id = await fail(web)
    bad_image, bad = await fail(web, UndecodableImage())
    ended = await shell("dead-letters", "list", "--tenant", TENANT)
    assert ended.code == 0
    assert letter_id in ended.out
    assert "would fail again" in ended.out
    listed = (await shell("dead-letters", "list", "--code", "INTERNAL", "--json")).json
    assert listed["imageId"] == image_id

    shown = (await shell("dead-letters", "show", letter_id)).json
    assert shown["originalEvent"]["data"]["imageId"] == image_id

    ended = await shell("dead-letters", "retry", "--all", "--tenant", TENANT)
    assert ended.code == 1
    assert ended.out == "1 done, 1 skipped.\n"
    assert bad in ended.err
    ended = await shell("dead-letters", "discard", bad, "--reason", "no picture")
    assert (ended.code, ended.out) == (0, "1 done, 0 skipped.\n")
    ended = await shell("dead-letters", "list")
    assert ended.out == "There is none.\n"
    ended = await shell("dead-letters", "list", "--state", "discarded", "--json")
    assert ended.json["reason"] == "no picture"
    assert ended.json["imageId"] == bad_image


@pytest.mark.parametrize(
    "arguments",
    [
        ("retry",),
        ("retry", "--all", NOBODY),
        ("retry", NOBODY, "--tenant", "demo"),
        ("discard", "--all"),
        ("list", "--tenant", "A"),
        ("list", "--state", "x"),
    ],
)
async def test_wrong_calls(shell: Shell, arguments: tuple[str, ...]) -> None:
    assert (await shell("dead-letters", *arguments)).code == 2


async def test_pictures_are_deleted_with_a_proof(shell: Shell, web: Web) -> None:
    web.purges = True
    image_id = (await web.upload(photograph("rocket").data))["imageId"]
    ended = await shell("delete", image_id)
    assert ended.code == 0
    assert ended.out == f"{image_id}: Nothing is left of this picture.\n"
    answer = (await shell("delete", image_id, "--json")).json
    assert all(step["status"] == "completed" for step in answer["deletionSteps"])
    assert (await shell("delete", NOBODY)).code == 1
    assert (await shell("delete")).code == 2


async def test_what_is_not_gone_yet_is_said(
    shell: Shell, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "_PATIENCE_S", 0.0)
    image_id = (await web.upload(photograph("rocket").data))["imageId"]
    ended = await shell("delete", image_id, "--wait", 0, "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["completedAt"] is None


async def test_a_whole_tenant_is_deleted(shell: Shell, web: Web) -> None:
    web.purges = True
    for name in ("rocket", "coffee"):
        await web.upload(photograph(name).data)
    ended = await shell("delete", "--whole-tenant", TENANT, "--yes")
    assert (ended.code, ended.out) == (0, f"{TENANT}: Nothing is left.\n")
    await until(lambda: not web._work)
    page = await web.storage.list_images(tenant=TENANT, limit=9)
    assert page.images == []


async def test_an_audit_is_a_table_and_an_exit_code(
    shell: Shell, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settled, "GRACE_S", -1.0)
    image_id = (await web.upload(photograph("rocket").data))["imageId"]
    ended = await shell("audit")
    assert ended.code == 1
    assert f"{TENANT} {image_id}: stuck" in ended.err
    ended = await shell("audit", "--repair", "--tenant", TENANT)
    assert ended.code == 0
    assert "balanced" in ended.out
    await web.index(image_id)
    ended = await shell("audit", "--json")
    assert ended.code == 0
    assert [json.loads(line)["type"] for line in ended.out.splitlines()] == ["tenant", "total"]
    web.rows.moving = True
    monkeypatch.setattr(rows, "PATIENCE_S", 0.0)  # nobody waits for the rows
    assert (await shell("audit")).code == 3
