"""``deeplens tenants`` against the real web layer."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from tests.support.api_keys import OPERATOR
from tests.support.shells import Shell
from tests.support.web_server import Web, running


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    with structlog.testing.capture_logs():
        async with running(tmp_path / "data", admin_key=OPERATOR) as found:
            yield found


@pytest.fixture
def shell(web: Web, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    url = str(web.client.make_url("/"))
    monkeypatch.setenv("DEEPLENS_URL", url)
    monkeypatch.setenv("DEEPLENS_API_KEY", OPERATOR)
    return Shell(url, capsys)


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


async def test_what_the_closing_look_found_is_printed(shell: Shell) -> None:
    ended = await shell("tenants", "create", "acme")
    assert ended.code == 0
    assert ended.out.splitlines()[-1] == "acme: Everything that it needs answers."

    ended = await shell("tenants", "create", "other", "--json")
    made, found = lines(ended.out)
    assert (ended.code, bool(made["apiKey"])) == (0, True)
    assert (found["success"], found["apiKey"]) == (True, None)
    assert {each["step"] for each in found["steps"]} >= {"collections", "keys"}


@pytest.mark.parametrize("as_json", [False, True])
async def test_what_the_closing_look_missed_is_printed(
    shell: Shell, web: Web, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    async def nothing(**_collection: Any) -> bool:
        return True

    monkeypatch.setattr(web.vectors, "create", nothing)
    ended = await shell("tenants", "create", "acme", *(["--json"] if as_json else []))
    assert ended.code == 3
    if as_json:
        assert [each["errorCode"] for each in lines(ended.out)] == [None, "COLLECTION_NOT_FOUND"]
    else:
        assert "collections  failed" in ended.out


async def test_a_tenant_that_exists_gets_the_limits_that_are_named(shell: Shell, web: Web) -> None:
    assert (await shell("tenants", "create", "acme", "--max-bytes", "5")).code == 0
    arguments = ("--model", "vit-b", "--dimension", "768", "--max-images", "7")
    ended = await shell("tenants", "create", "acme", *arguments)
    assert ended.code == 0, ended.err
    row = web.registry.find("acme")
    assert row is not None
    assert (row.limits.images, row.limits.bytes) == (7, 5)
    ended = await shell("tenants", "create", "acme", "--max-images", "9")
    assert ended.code == 1, "without a model, one that exists is refused"


async def test_a_step_that_another_worker_does_is_called_skipped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with structlog.testing.capture_logs():
        async with running(tmp_path, admin_key=OPERATOR, vectors=None) as web:
            monkeypatch.setenv("DEEPLENS_URL", url := str(web.client.make_url("/")))
            monkeypatch.setenv("DEEPLENS_API_KEY", OPERATOR)
            ended = await Shell(url, capsys)("tenants", "create", "acme")
    assert ended.code == 0
    assert "collections  skipped" in ended.out
