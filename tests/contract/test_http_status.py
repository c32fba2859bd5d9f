"""Status over HTTP and by websocket, and the rows that workers ask each other for."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError

from deeplens_streams.circuit_breaker import breaker as circuit_breaker
from deeplens_streams.client import models
from deeplens_streams.errors import BrokerUnavailable, ExtractorUnavailable, RowMoving
from deeplens_streams.web import readiness
from deeplens_streams.web.app_keys import FOLLOWERS, READINESS
from deeplens_streams.web.context import Check
from deeplens_streams.web.handlers import status_socket
from models.status import ImageRow, Step, StepReport, StepStatus
from tests.support.photographs import photograph
from tests.support.web_server import TENANT, Web, done_row, report, row_of, running, until

HUB = "/hub/processing-status"
ROCKET = photograph("rocket").data

NOBODY = "img_00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path) as found:
        yield found


def new_id() -> str:
    return f"img_{uuid.uuid4()}"


async def get(served: Web, path: str, expected: int = 200) -> dict[str, Any]:
    async with served.client.get(path) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == expected, answer
        return answer


async def status_of(served: Web, image_id: str) -> dict[str, Any]:
    answer = await get(served, f"/api/v1/images/{image_id}/status")
    assert answer.keys() == models.Status.blank().keys()
    assert answer["success"] is True
    return answer


async def test_an_upload_has_a_status_at_once(served: Web) -> None:
    uploaded = await served.upload(ROCKET)
    answer = await get(served, uploaded["statusCheckUrl"])
    assert answer.keys() == models.Status.blank().keys()
    assert answer["status"] == "uploaded"
    assert answer["imageId"] == uploaded["imageId"]
    assert answer["tenantId"] == TENANT
    assert answer["percentComplete"] == 0
    assert answer["estimatedTimeRemainingSeconds"] is None
    assert answer["searchableAfter"] is None
    assert answer["uploadedAt"] == uploaded["timestamp"]
    assert answer["correlationId"] == served.published[0].eventId
    assert [step["step"] for step in answer["processingSteps"]] == list(Step)
    assert {step["status"] for step in answer["processingSteps"]} == {"pending"}
    assert answer["processingSteps"][0] == {
        "step": "image_processing",
        "status": "pending",
        "duration": None,
        "attempt": 0,
        "modelName": None,
        "collectionName": None,
        "errorMessage": None,
    }


async def test_a_thumbnail_that_nobody_wants_is_skipped(served: Web) -> None:
    uploaded = await served.upload(ROCKET, generateThumbnail="false")
    steps = (await status_of(served, uploaded["imageId"]))["processingSteps"]
    assert [step["status"] for step in steps] == ["pending", "skipped", "pending", "pending"]


async def test_the_prefix_may_be_left_out(served: Web) -> None:
    uploaded = await served.upload(ROCKET)
    bare = uploaded["imageId"].removeprefix("img_")
    assert (await status_of(served, bare.upper()))["imageId"] == uploaded["imageId"]


async def test_progress_is_measured(served: Web) -> None:
    image_id = new_id()
    steps = [
        report(Step.IMAGE_PROCESSING, StepStatus.COMPLETED, duration=2.5),
        report(Step.FEATURE_EXTRACTION, StepStatus.RETRYING, attempt=2, modelName="b"),
    ]
    served.rows.held[image_id] = row_of(image_id, "processing", steps, models=["a", "b"])
    answer = await status_of(served, image_id)
    assert [(step["step"], step["modelName"]) for step in answer["processingSteps"]] == [
        ("image_processing", None),
        ("thumbnail_generation", None),
        ("feature_extraction", "a"),
        ("feature_extraction", "b"),
        ("vector_indexing", "a"),
        ("vector_indexing", "b"),
    ]
    assert answer["percentComplete"] == 17
    assert answer["processingSteps"][3]["attempt"] == 2


def wait_for_the_model(served: Web, at: str, **more: Any) -> ImageRow:
    """Have the feed tell of a picture that a stage has in hand and that waits, or waited."""
    said = {"status": StepStatus.RETRYING, "errorCode": "EXTRACTOR_UNAVAILABLE"} | more
    step = report(Step.FEATURE_EXTRACTION, modelName="resnet50", at=at, **said)
    row = row_of(
        new_id(), "processing", [report(Step.IMAGE_PROCESSING, StepStatus.COMPLETED), step]
    )
    served.feed.tell(row)
    return row


async def test_a_picture_behind_those_that_wait_says_why(served: Web) -> None:
    image_id = new_id()
    row = steps_row(image_id, StepStatus.COMPLETED)
    served.rows.held[image_id] = row
    assert (await status_of(served, image_id))["processingSteps"][2]["status"] == "pending"
    wait_for_the_model(served, "2026-01-01T00:00:01.000Z")
    answer = await status_of(served, image_id)
    assert answer["status"] == "processing"
    assert answer["percentComplete"] == 25
    assert answer["errorMessage"] is None
    steps = answer["processingSteps"]
    assert [step["status"] for step in steps] == ["completed", "pending", "retrying", "pending"]
    assert steps[2]["errorMessage"] == ExtractorUnavailable().message
    assert steps[2]["attempt"] == 0
    assert [step["errorMessage"] for step in (steps[0], steps[1], steps[3])] == [None] * 3
    wait_for_the_model(served, "2026-01-01T00:00:02.000Z", status=StepStatus.COMPLETED)
    assert (await status_of(served, image_id))["processingSteps"][2]["status"] == "pending"


async def test_a_picture_at_its_end_waits_for_nothing(served: Web) -> None:
    wait_for_the_model(served, "2026-01-01T00:00:01.000Z")
    image_id = new_id()
    steps = [
        report(Step.IMAGE_PROCESSING, StepStatus.COMPLETED),
        report(Step.FEATURE_EXTRACTION, StepStatus.FAILED, modelName="other"),
    ]
    served.rows.held[image_id] = row_of(image_id, "partial", steps, models=["other", "resnet50"])
    said = (await status_of(served, image_id))["processingSteps"]
    assert {step["status"] for step in said} == {"completed", "failed", "skipped"}


async def test_an_image_at_its_end(served: Web) -> None:
    image_id = new_id()
    served.rows.held[image_id] = done_row(image_id, models=["resnet50"])
    answer = await status_of(served, image_id)
    assert answer["status"] == "completed"
    assert answer["percentComplete"] == 100
    assert answer["estimatedTimeRemainingSeconds"] == 0
    assert answer["searchableAfter"].endswith("Z")


async def test_a_failed_image_says_why_and_what_was_not_tried(served: Web) -> None:
    image_id = new_id()
    steps = [report(Step.IMAGE_PROCESSING, StepStatus.FAILED, errorMessage="It is damaged.")]
    served.rows.held[image_id] = row_of(
        image_id, "failed", steps, errorCode="UNDECODABLE_IMAGE", errorMessage="It is damaged."
    )
    answer = await status_of(served, image_id)
    assert answer["success"] is True
    assert answer["errorCode"] == "UNDECODABLE_IMAGE"
    assert answer["errorMessage"] == "It is damaged."
    states = [step["status"] for step in answer["processingSteps"]]
    assert states == ["failed", "skipped", "skipped", "skipped"]


async def test_time_left_is_measured(served: Web) -> None:
    for took in (10, 20, 30):
        row = done_row(new_id(), models=["resnet50"])
        hour = row.uploadedAt[:17]
        row.uploadedAt, row.searchableAfter = f"{hour}00.000Z", f"{hour}{took}.000Z"
        served.feed.tell(row)
    image_id = new_id()
    served.rows.held[image_id] = row_of(image_id, "processing", [])
    answer = await status_of(served, image_id)
    assert 15 < answer["estimatedTimeRemainingSeconds"] <= 20


@pytest.mark.parametrize("bad", ["x", "img_", "img_123", "..%2F..", f"{NOBODY}0"])
async def test_what_is_no_image_id(served: Web, bad: str) -> None:
    answer = await get(served, f"/api/v1/images/{bad}/status", 400)
    assert answer["errorCode"] == "INVALID_IMAGE_ID"
    assert answer["processingSteps"] == []
    assert answer.keys() == models.Status.blank().keys()


async def test_an_unknown_image(served: Web) -> None:
    answer = await get(served, f"/api/v1/images/{new_id()}/status", 404)
    assert answer["errorCode"] == "IMAGE_NOT_FOUND"


async def test_a_row_that_moves_is_no_missing_image(served: Web) -> None:
    uploaded = await served.upload(ROCKET)
    served.rows.moving = True
    async with served.client.get(uploaded["statusCheckUrl"]) as response:
        answer = await response.json()
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert answer["errorCode"] == RowMoving.code


async def test_while_a_row_moves_nobody_says_that_there_is_nothing_to_retry(served: Web) -> None:
    uploaded = await served.upload(ROCKET)
    served.rows.moving = True
    async with served.client.post(f"/api/v1/images/{uploaded['imageId']}/retry") as response:
        assert (response.status, (await response.json())["errorCode"]) == (503, RowMoving.code)
        assert response.headers["Retry-After"] == "1"


# The websocket ----------------------------------------------------------------------------------


def steps_row(image_id: str, *statuses: StepStatus, **more: Any) -> ImageRow:
    """Return a row under way whose first steps have `statuses`."""
    reports = [
        report(step, each, modelName=None if step in list(Step)[:2] else "resnet50")
        for step, each in zip(Step, statuses, strict=False)
    ]
    return row_of(image_id, "processing", reports, **more)


async def test_the_socket_follows_to_the_end(served: Web) -> None:
    uploaded = await served.upload(ROCKET)
    image_id = uploaded["imageId"]
    async with served.client.ws_connect(uploaded["webSocketUrl"]) as socket:
        first = await socket.receive_json(timeout=5)
        assert first.keys() == models.Status.blank().keys()
        assert first["status"] == "uploaded"
        served.feed.tell(steps_row(image_id, StepStatus.IN_PROGRESS))
        served.feed.tell(steps_row(image_id, StepStatus.COMPLETED))
        served.feed.tell(done_row(image_id, models=["resnet50"]))
        percents = [(await socket.receive_json(timeout=5))["percentComplete"] for _ in range(3)]
        assert percents == [0, 25, 100]
        message = await socket.receive(timeout=5)
        assert (message.type, socket.close_code) == (WSMsgType.CLOSE, 1000)
    await until(lambda: not served.feed.watchers[image_id])


async def test_the_socket_says_what_is_waited_for(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_socket, "_POLL_S", 0.05)
    image_id = new_id()
    served.rows.held[image_id] = steps_row(image_id, StepStatus.COMPLETED)
    async with served.client.ws_connect(f"{HUB}?imageId={image_id}") as socket:
        seen = []
        for second, status_ in enumerate((None, StepStatus.RETRYING, StepStatus.COMPLETED)):
            if status_ is not None:
                wait_for_the_model(served, f"2026-01-01T00:00:0{second}.000Z", status=status_)
            seen.append((await socket.receive_json(timeout=5))["processingSteps"][2]["status"])
        assert seen == ["pending", "retrying", "pending"]


async def test_the_socket_shows_why_a_fresh_picture_waits(served: Web) -> None:
    uploaded = await served.upload(ROCKET, generateThumbnail="false")
    async with served.client.ws_connect(uploaded["webSocketUrl"]) as socket:
        assert (await socket.receive_json(timeout=5))["status"] == "uploaded"
        served.feed.tell(steps_row(uploaded["imageId"], StepStatus.RETRYING))
        said = (await socket.receive_json(timeout=5))["processingSteps"][0]
        assert said["status"] == "retrying"


async def test_what_only_a_newer_version_knows_is_told_in_the_contracts_words(served: Web) -> None:
    image_id = (await served.upload(photograph("rocket").data))["imageId"]
    steps = [
        StepReport(step="image_processing", status="completed"),
        StepReport(step="feature_extraction", status="queued", modelName="resnet50"),
        StepReport(step="face_detection", status="half_done"),
    ]
    row = row_of(image_id, "awaiting_review", steps, models=["resnet50"])
    served.rows.held[image_id] = row
    answer = await get(served, f"/api/v1/images/{image_id}/status")
    assert answer["status"] == "processing"
    assert [step["step"] for step in answer["processingSteps"]] == list(Step)
    assert answer["processingSteps"][2]["status"] == "in_progress"
    (other,) = answer["otherSteps"]
    assert (other["step"], other["status"]) == ("face_detection", "in_progress")
    assert (await get(served, f"/api/v1/images/{image_id}"))["status"] == "processing"


async def test_the_socket_shows_no_row_of_another_tenant(served: Web) -> None:
    uploaded = await served.upload(ROCKET)
    image_id = uploaded["imageId"]
    async with served.client.ws_connect(uploaded["webSocketUrl"]) as socket:
        await socket.receive_json(timeout=5)
        served.feed.tell(done_row(image_id, models=["resnet50"], tenant="another"))
        served.feed.tell(steps_row(image_id, StepStatus.COMPLETED))
        seen = await socket.receive_json(timeout=5)
        assert (seen["tenantId"], seen["status"]) == (TENANT, "processing")


async def test_the_socket_forgets_who_followed_a_stranger_s_row(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was put right belongs to somebody else than who is told."""
    monkeypatch.setattr(status_socket, "_POLL_S", 0.05)
    image_id = new_id()
    forged = steps_row(image_id, StepStatus.IN_PROGRESS, tenantId="forger")
    served.rows.held[image_id] = forged
    async with served.client.ws_connect(f"{HUB}?imageId={image_id}&tenantId=forger") as socket:
        assert (await socket.receive_json(timeout=5))["tenantId"] == "forger"
        served.rows.held[image_id] = done_row(image_id, models=["resnet50"])
        message = await socket.receive(timeout=5)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 4404)
    await until(lambda: not served.feed.watchers[image_id])


async def suspend(served: Web, action: str = "suspend") -> None:
    path = f"/api/v1/admin/tenants/{TENANT}/{action}"
    async with served.client.post(path) as response:
        assert response.status == 200


async def test_a_suspended_tenant_s_status_without_keys(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_socket, "_POLL_S", 0.05)
    async with served.client.post("/api/v1/admin/tenants", json={"tenantId": TENANT}) as response:
        assert response.status == 201
    uploaded = await served.upload(ROCKET)
    async with served.client.ws_connect(uploaded["webSocketUrl"]) as socket:
        await socket.receive_json(timeout=5)
        await suspend(served)
        assert (await socket.receive(timeout=5)).data == 4403
    answer = await get(served, uploaded["statusCheckUrl"], 403)
    assert answer["errorCode"] == "TENANT_SUSPENDED"
    async with served.client.post(f"/api/v1/images/{uploaded['imageId']}/retry") as response:
        assert (response.status, (await response.json())["errorCode"]) == (403, "TENANT_SUSPENDED")
    async with served.client.ws_connect(uploaded["webSocketUrl"]) as socket:
        message = await socket.receive(timeout=5)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 4403)
    await get(served, f"/api/v1/images/{uploaded['imageId']}/status?tenantId=other", 404)
    await suspend(served, "resume")
    await get(served, uploaded["statusCheckUrl"])


async def test_the_socket_never_goes_back(served: Web) -> None:
    image_id = new_id()
    served.rows.held[image_id] = steps_row(
        image_id, StepStatus.COMPLETED, StepStatus.COMPLETED, StepStatus.IN_PROGRESS
    )
    async with served.client.ws_connect(f"{HUB}?imageId={image_id}") as socket:
        assert (await socket.receive_json(timeout=5))["percentComplete"] == 50
        served.feed.tell(served.rows.held[image_id])  # a repeat
        served.feed.tell(steps_row(image_id, StepStatus.COMPLETED))  # late
        # A retry opens a new generation, which begins again.
        served.feed.tell(row_of(image_id, "processing", [], generation=2))
        served.feed.tell(done_row(image_id, models=["resnet50"]))  # the old one's end, late
        end = done_row(image_id, models=["resnet50"])
        end.generation = 2
        served.feed.tell(end)
        assert (await socket.receive_json(timeout=5))["percentComplete"] == 0
        assert (await socket.receive_json(timeout=5))["percentComplete"] == 100


async def test_an_image_at_its_end_is_told_once(served: Web) -> None:
    image_id = new_id()
    served.rows.held[image_id] = done_row(image_id, models=["resnet50"])
    async with served.client.ws_connect(f"{HUB}?imageId={image_id}") as socket:
        assert (await socket.receive_json(timeout=5))["status"] == "completed"
        assert (await socket.receive(timeout=5)).data == 1000


@pytest.mark.parametrize(
    ("query", "code"),
    [(f"?imageId={NOBODY}", 4404), ("?imageId=x", 4400), ("", 4400)],
)
async def test_the_socket_refuses(served: Web, query: str, code: int) -> None:
    async with served.client.ws_connect(HUB + query) as socket:
        message = await socket.receive(timeout=5)
        assert (message.type, message.data) == (WSMsgType.CLOSE, code)
        assert message.extra


async def test_a_lost_message_hangs_nobody(served: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_socket, "_POLL_S", 0.05)
    uploaded = await served.upload(ROCKET)
    async with served.client.ws_connect(uploaded["webSocketUrl"]) as socket:
        await socket.receive_json(timeout=5)
        image_id = uploaded["imageId"]
        served.rows.held[image_id] = done_row(image_id, models=["resnet50"])
        assert (await socket.receive_json(timeout=5))["status"] == "completed"


async def test_the_socket_waits_while_a_row_moves(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_socket, "_RETRY_S", 0.01)
    uploaded = await served.upload(ROCKET)
    served.rows.moving = True
    async with served.client.ws_connect(uploaded["webSocketUrl"]) as socket:
        await until(lambda: served.feed.watchers[uploaded["imageId"]])
        served.rows.moving = False
        assert (await socket.receive_json(timeout=5))["status"] == "uploaded"


async def test_sockets_are_bounded(tmp_path: Path) -> None:
    async with running(tmp_path, max_websockets=1) as served:
        url = (await served.upload(ROCKET))["webSocketUrl"]
        async with served.client.ws_connect(url) as socket:
            await socket.receive_json(timeout=5)
            with pytest.raises(WSServerHandshakeError) as refused:
                await served.client.ws_connect(url)
            assert refused.value.status == 429
            assert refused.value.headers is not None
            assert int(refused.value.headers["Retry-After"]) > 0
            async with served.client.get(url) as response:
                answer = await response.json()
            assert (response.status, answer["errorCode"]) == (429, "TOO_MANY_REQUESTS")
            assert answer.keys() == models.Status.blank().keys()
        await until(lambda: served.client.app[FOLLOWERS].taken == 0)
        async with served.client.ws_connect(url) as socket:
            await socket.receive_json(timeout=5)


async def test_the_client_may_hang_up(served: Web) -> None:
    uploaded = await served.upload(ROCKET)
    async with served.client.ws_connect(uploaded["webSocketUrl"]) as socket:
        await socket.receive_json(timeout=5)
        await socket.send_str("whatever")
    await until(lambda: not served.feed.watchers[uploaded["imageId"]])


async def test_the_server_says_goodbye(served: Web) -> None:
    uploaded = await served.upload(ROCKET)
    async with served.client.ws_connect(uploaded["webSocketUrl"]) as socket:
        await socket.receive_json(timeout=5)
        closing = asyncio.create_task(served.client.server.close())
        assert (await socket.receive(timeout=5)).data == 1001
        await socket.close()
        await closing


async def test_a_plain_request_to_the_hub(served: Web) -> None:
    answer = await get(served, f"{HUB}?imageId={new_id()}", 400)
    assert answer["errorCode"] == "BAD_REQUEST"


# Between workers, and for people ----------------------------------------------------------------


async def test_rows_for_other_workers(served: Web) -> None:
    image_id = new_id()
    row = served.rows.held[image_id] = done_row(image_id, models=["resnet50"])
    body = {"ids": [image_id, new_id()]}
    async with served.client.post("/internal/rows", json=body) as response:
        assert (await response.json())["rows"] == {image_id: row.to_wire()}


async def test_rows_that_are_not_recovered_are_not_missing_for_other_workers(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moving(*_asked: str) -> None:
        raise RowMoving

    image_id = new_id()
    for source in (served.rows, served.tables):
        monkeypatch.setattr(source, "local_row", moving)
    path = f"/internal/tables/image_status/rows/{image_id}"
    assert (await get(served, path, 503))["errorCode"] == RowMoving.code
    async with served.client.post("/internal/rows", json={"ids": [image_id]}) as response:
        assert response.status == 503
        assert (await response.json())["errorCode"] == RowMoving.code


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"ids": "x"}', b'{"ids": ["x"]}', b'{"ids": ["' + b'","' * 2000 + b'"]}'],
)
async def test_bad_questions_of_workers(served: Web, body: bytes) -> None:
    async with served.client.post("/internal/rows", data=body) as response:
        assert response.status == 400
        assert (await response.json())["rows"] == {}


# Health -----------------------------------------------------------------------------------------


async def test_ready_names_every_dependency(served: Web) -> None:
    answer = await get(served, "/health/ready")
    assert answer["checks"].keys() == {"broker", "tables", "storage", "vectors", "extractor"}
    assert answer["status"] == "ready"
    assert answer["model"]["name"] == served.model.name
    assert answer["warning"] == served.model.warning


async def test_who_asks_often_has_nothing_asked(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    pings = 0
    asked, answer = asyncio.Event(), asyncio.Event()

    async def ping(_self: object) -> None:
        nonlocal pings
        pings += 1
        asked.set()
        await answer.wait()

    monkeypatch.setattr(type(served.storage), "ping", ping)
    first = asyncio.create_task(served.client.app[READINESS].checks())
    await asked.wait()
    many = [asyncio.create_task(get(served, "/health/ready")) for _ in range(20)]
    await get(served, "/health/live")
    first.cancel()  # who hangs up ends it for nobody else
    answer.set()
    for each in await asyncio.gather(*many):
        assert each["checks"]["storage"]["ok"]
    await get(served, "/health/ready?only=storage")
    assert pings == 1
    now = asyncio.get_running_loop().time
    monkeypatch.setattr(readiness, "_now", lambda: now() + readiness.FRESH_S)
    for _ in range(3):
        await get(served, "/health/ready")
    assert pings == 2


async def test_not_ready_says_why(served: Web) -> None:
    served.checks["tables"] = Check(ok=False, detail="Recovering.")
    answer = await get(served, "/health/ready", 503)
    assert answer["success"] is False
    assert answer["errorCode"] == "NOT_READY"
    assert answer["checks"]["tables"] == {
        "ok": False,
        "detail": "Recovering.",
        "breaker": "closed",
    }
    assert "tables" in answer["message"]
    assert (await get(served, "/health/live"))["success"] is True


async def test_an_open_breaker_is_not_ready_until_it_would_let_a_call_through(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "FIRST_WAIT_S", 60.0)
    monkeypatch.setattr(readiness, "FRESH_S", 0.0)
    breaker = served.services.breakers["broker"]
    for _ in range(circuit_breaker.TRIES):
        breaker.note(BrokerUnavailable())
    answer = await get(served, "/health/ready?only=broker", 503)
    assert answer["checks"]["broker"]["breaker"] == "open"
    # Who is not ready is asked nothing: it would never find out.
    breaker._next_at = 0.0
    answer = await get(served, "/health/ready?only=broker")
    assert answer["checks"]["broker"] == {"ok": True, "detail": "", "breaker": "open"}
    served.checks["broker"] = Check(ok=False, detail="No broker.")
    await get(served, "/health/ready?only=broker", 503)


async def test_metrics(served: Web) -> None:
    await served.upload(ROCKET)
    async with served.client.get("/metrics") as response:
        text = await response.text()
    assert response.headers["Content-Type"].startswith("text/plain")
    assert 'deeplens_uploads_total{result="accepted"}' in text
    assert "deeplens_upload_seconds_bucket" in text
