"""The log of what operators do: every change, whom or what it was about, and no secret."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agents import dead_letters as keeper
from deeplens_streams.errors import StorageUnavailable
from deeplens_streams.pipeline.dead_letters import dead_letter, kept_as
from deeplens_streams.pipeline.requests import uploaded_event
from deeplens_streams.storage.admin_log import AdminLog
from deeplens_streams.tenancy import api_keys
from models.status import Step, StepStatus
from tests.support.api_keys import OPERATOR, ask, tenant_key, uploaded
from tests.support.photographs import photograph
from tests.support.stage_messages import incoming
from tests.support.web_server import Web, report, row_of, running

LOG = "/api/v1/admin/log"
TENANTS = "/api/v1/admin/tenants"
LETTERS = "/api/v1/dead-letters"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path, admin_key=OPERATOR) as web:
        web.indexes = web.purges = True
        yield web


async def actions(served: Web, key: str | None = OPERATOR) -> list[dict[str, Any]]:
    """Return what the log says, newest first."""
    status, answer = await ask(served, "GET", f"{LOG}?limit=200", key)
    assert status == 200
    found: list[dict[str, Any]] = answer["actions"]
    return found


async def done(served: Web, method: str, path: str, body: Any = None) -> tuple[Any, dict[str, Any]]:
    """Do something as an operator; return the answer, and what the log says of it."""
    before = len(await actions(served))
    status, answer = await ask(served, method, path, OPERATOR, body)
    assert status < 300, answer
    said = await actions(served)
    assert len(said) == before + 1
    assert (said[0]["path"], said[0]["status"]) == (path, status)
    return answer, said[0]["subject"]


async def failed(served: Web, key: str) -> tuple[str, str]:
    """Return the image and the dead letter of a picture that could not be processed."""
    image_id = await uploaded(served, key)
    image = await served.storage.find(image_id)
    assert image is not None
    event = uploaded_event(image)
    letter = dead_letter(Step.IMAGE_PROCESSING, event, RuntimeError("x"), 3, incoming(b""))
    await keeper.process(letter.event, served.services)  # a letter
    steps = [report(Step.IMAGE_PROCESSING, StepStatus.FAILED)]
    row = row_of(image_id, "failed", steps, tenantId=image.tenantId)
    row.correlationId = image.correlationId
    served.rows.held[image_id] = row
    return image_id, kept_as(image.tenantId, letter.event.eventId)


async def test_the_log_says_which_tenant_was_made_and_with_which_limits(served: Web) -> None:
    answer, subject = await done(
        served, "POST", TENANTS, {"tenantId": "acme", "limits": {"images": 7}}
    )
    assert subject["tenantId"] == "acme"
    assert subject["limits"]["images"] == 7
    assert subject["keyId"] == api_keys.key_id(answer["apiKey"])
    _, subject = await done(served, "PATCH", f"{TENANTS}/acme", {"limits": {"bytes": 9}})
    assert (subject["limits"]["images"], subject["limits"]["bytes"]) == (7, 9)
    _, subject = await done(served, "POST", f"{TENANTS}/acme/suspend")
    assert subject is None, "the path says all"


async def test_the_log_says_which_key_was_made_and_never_the_key(served: Web) -> None:
    keys = [await tenant_key(served, "acme")]
    for path in (f"{TENANTS}/acme/keys", "/api/v1/admin/keys"):
        answer, subject = await done(served, "POST", path, {"scopes": ["read"]})
        made = answer["key"]["keyId"]
        assert subject == {"scopes": ["read"], "expiresAt": None, "keyId": made}
        keys.append(answer["apiKey"])
        answer, subject = await done(served, "POST", f"{path}/{made}/rotate", {})
        assert subject["keyId"] == answer["key"]["keyId"] != made
        assert subject["oldKeyEndsAt"] in answer["message"]
        keys.append(answer["apiKey"])
    said = str(await actions(served))
    for key in [*keys, OPERATOR]:
        assert key not in said
        assert key.split("_", 2)[-1] not in said  # the secret itself may have one, too
        assert api_keys.digest(key) not in said


async def test_the_log_says_which_letters_were_retried_or_discarded(served: Web) -> None:
    key = await tenant_key(served, "acme")
    (first, one), (second, two), (third, three) = [await failed(served, key) for _ in range(3)]
    await served.storage.delete_metadata(tenant="acme", image_id=second)
    _, subject = await done(served, "POST", f"{LETTERS}/retry", {"ids": [one, two]})
    assert subject == {"letterIds": [one], "skipped": 1}
    _, subject = await done(
        served, "POST", f"{LETTERS}/discard", {"tenantId": "acme", "reason": "a test"}
    )
    assert subject == {"letterIds": [three], "skipped": 0}
    assert first != third


async def test_the_log_says_which_collection_was_made(served: Web) -> None:
    await tenant_key(served, "acme")
    body = {"tenantId": "acme", "modelName": "other", "vectorDimension": 8}
    _, subject = await done(served, "POST", "/api/v1/admin/collections", body)
    assert subject == body


@pytest.mark.parametrize("scopes", [None, ["delete", "upload", "read"]])
async def test_what_operators_change_of_a_tenants_pictures_is_logged(
    served: Web, scopes: list[str] | None
) -> None:
    """Also with a key of theirs that has not the scope admin."""
    key, theirs = await tenant_key(served, "acme"), OPERATOR
    if scopes is not None:
        _, answer = await ask(served, "POST", "/api/v1/admin/keys", OPERATOR, {"scopes": scopes})
        theirs = answer["apiKey"]
    image_id, letter_id = await failed(served, key)
    before = len(await actions(served))
    for method, path, expected in (
        ("POST", f"/api/v1/images/{image_id}/retry", 202),
        ("DELETE", f"/api/v1/images/{image_id}", 200),
        ("DELETE", f"/api/v1/images/{image_id[:-4]}0000", 404),
    ):
        assert (await ask(served, method, path, theirs))[0] == expected
    missing, deleted, retried, *rest = await actions(served)
    assert len(rest) == before
    assert [each["status"] for each in (missing, deleted, retried)] == [404, 200, 202]
    assert deleted["path"] == f"/api/v1/images/{image_id}"
    assert retried["subject"] == {"tenantId": "acme", "letterIds": [letter_id]}
    expected_id = "operator" if scopes is None else api_keys.key_id(theirs)
    assert {each["keyId"] for each in (missing, deleted, retried)} == {expected_id}


async def test_what_tenants_do_and_what_changes_nothing_is_not_logged(served: Web) -> None:
    key = await tenant_key(served, "acme")
    before = await actions(served)
    image_id, _ = await failed(served, key)
    assert (await ask(served, "POST", f"/api/v1/images/{image_id}/retry", key))[0] == 202
    assert (await ask(served, "DELETE", f"/api/v1/images/{image_id}", key))[0] == 200
    await uploaded(served, OPERATOR, tenantId="acme")
    assert (await ask(served, "GET", "/api/v1/images?tenantId=acme", OPERATOR))[0] == 200
    assert await actions(served) == before


async def test_the_log_says_how_a_body_that_is_too_large_was_answered(served: Web) -> None:
    status, answer = await ask(served, "POST", TENANTS, OPERATOR, {"tenantId": "z" * 300_000})
    assert (status, answer["errorCode"]) == (413, "TOO_LARGE")
    (said,) = await actions(served)
    assert said["status"] == 413


async def test_with_keys_off_the_log_has_what_is_for_operators_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as web:
        web.purges = True
        image_id = (await web.upload(photograph("rocket").data))["imageId"]
        assert (await ask(web, "DELETE", f"/api/v1/images/{image_id}", None))[0] == 200
        assert (await ask(web, "POST", TENANTS, None, {"tenantId": "acme"}))[0] == 201
        (said,) = await actions(web, None)
        assert (said["keyId"], said["subject"]["tenantId"]) == ("none", "acme")


async def test_what_cannot_be_written_down_is_not_done(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the request, nor what it is about."""
    key = await tenant_key(served, "acme")
    image_id = await uploaded(served, key)

    async def away(*_arguments: object, **_named: object) -> None:
        raise StorageUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(AdminLog, "begin", away)
        status, _ = await ask(served, "DELETE", f"/api/v1/images/{image_id}", OPERATOR)
        assert status == 503
    assert (await ask(served, "GET", f"/api/v1/images/{image_id}", key))[0] == 200
    with monkeypatch.context() as patched:
        patched.setattr(AdminLog, "tell", away)
        status, _ = await ask(served, "POST", TENANTS, OPERATOR, {"tenantId": "other"})
        assert status == 503
    assert [row.tenantId for row in served.registry.tenants()] == ["acme"]
    assert (await actions(served))[0]["status"] == 503


async def test_what_it_is_about_is_there_before_it_is_done(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed meanwhile leaves an entry without an answer, but with a subject."""

    async def killed(*_arguments: object, **_named: object) -> None:
        raise StorageUnavailable

    monkeypatch.setattr(AdminLog, "end", killed)
    await ask(served, "POST", TENANTS, OPERATOR, {"tenantId": "acme"})
    (said,) = await actions(served)
    assert (said["status"], said["subject"]["tenantId"]) == (None, "acme")
