"""``deeplens audit`` against the real web layer."""

import json

import pytest

from deeplens_streams.audit import settled
from deeplens_streams.web.handlers import audit as web_audit
from tests.support.photographs import photograph
from tests.support.shells import Shell, shell, web
from tests.support.web_server import TENANT, Web

__all__ = ["shell", "web"]  # fixtures


async def test_how_far_it_is_is_no_result(
    shell: Shell, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_audit, "_SILENCE_S", 0.0)
    await web.index((await web.upload(photograph("rocket").data))["imageId"])
    ended = await shell("audit")
    assert (ended.code, ended.err) == (0, "")  # nobody sits before it
    assert len(ended.out.splitlines()) == 3
    ended = await shell("audit", "--json")
    assert ended.code == 0
    types = [json.loads(line)["type"] for line in ended.out.splitlines()]
    assert types[-1] == "total"
    assert set(types) == {"progress", "tenant", "total"}


async def test_what_is_not_accounted_for_is_a_column_and_an_exit_code(
    shell: Shell, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settled, "GRACE_S", -1.0)
    image_id = (await web.upload(photograph("rocket").data))["imageId"]
    ended = await shell("audit")
    assert ended.code == 1
    head, mine, _ = (line.split() for line in ended.out.splitlines())
    columns = dict(zip(head, mine, strict=False))
    assert columns["tenant"] == TENANT
    assert (columns["accepted"], columns["inFlight"], columns["unknown"]) == ("1", "0", "1")
    assert mine[-2:] == ["not", "balanced"]
    assert image_id in ended.err


async def test_what_an_older_preprocessing_made_is_told_and_found_where_asked(
    shell: Shell, web: Web
) -> None:
    image_id = (await web.upload(photograph("rocket").data))["imageId"]
    await web.index(image_id)
    assert web.vectors is not None
    place = {"tenant": TENANT, "model": web.model.name}
    point = await web.vectors.get_point(**place, image_id=image_id)
    assert point is not None
    del point.payload["preprocessingVersion"]
    await web.vectors.upsert([point], **place)
    ended = await shell("audit")
    assert ended.code == 0
    assert "Of 1 pictures an older preprocessing made the vector" in ended.err
    ended = await shell("audit", "--outdated")
    assert ended.code == 1
    assert f"{image_id}: outdated, its vector was made before" in ended.err
    assert (await shell("audit", "--outdated", "--repair")).code == 0


async def test_it_says_up_to_when_it_could_judge_what_is_in_flight(shell: Shell, web: Web) -> None:
    await web.upload(photograph("rocket").data)
    ended = await shell("audit")
    assert ended.code == 0
    assert "is taken to be on its way" in ended.err
    web.backlog.behind_s = None
    ended = await shell("audit")
    assert ended.code == 0
    assert "It is not known yet" in ended.err
