"""Of many retries at once, in any workers, one is done; one that was cut off locks nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import EXTRACTION
from deeplens_streams.errors import BrokerUnavailable, RetryUnderWay
from deeplens_streams.pipeline.retry import CLAIM_S, Replay
from deeplens_streams.storage.dead_letters import is_recent
from models.letters import DeadLetter
from tests.support.dead_letters import LETTERS, call, fail
from tests.support.web_server import TENANT, Web, row_of, running

ONE, OTHER = 0, 1


@pytest.fixture(params=["local", "memory"])
async def workers(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[list[Web]]:
    """Two api workers on one storage and one status table; of memory, one worker twice."""
    url = "memory://" if request.param == "memory" else (tmp_path / "images").as_uri()
    async with running(tmp_path / "one", storage_url=url) as one:
        if request.param == "memory":
            yield [one, one]
            return
        async with running(tmp_path / "other", storage_url=url) as other:
            other.rows.held = one.rows.held
            yield [one, other]


def runs(workers: list[Web]) -> int:
    """Return how often an extraction was asked for again."""
    sent = {id(message): message for worker in workers for message in worker.sent}
    return sum(
        message.topic is EXTRACTION and message.event.generation > 1 for message in sent.values()
    )


async def ask(workers: list[Web], path: str, times: int, body: Any = None) -> list[Any]:
    async def one(worker: Web) -> tuple[int, dict[str, Any]]:
        async with worker.client.post(path, json=body) as response:
            return response.status, await response.json()

    return await asyncio.gather(*(one(each) for each in islice(cycle(workers), times)))


async def test_of_fifty_retries_of_an_image_one_is_done(workers: list[Web]) -> None:
    image_id, letter_id = await fail(workers[ONE])
    path = f"/api/v1/images/{image_id}/retry"
    answers = await ask(workers, path, 50)
    assert Counter(status for status, _ in answers) == {202: 1, 409: 49}
    assert {said["errorCode"] for status, said in answers if status == 409} == {"RETRY_UNDER_WAY"}
    assert runs(workers) == 1
    # The row does not say so yet; then it does.
    assert (await call(workers[OTHER], "POST", path, 409))["errorCode"] == "RETRY_UNDER_WAY"
    workers[ONE].rows.held[image_id] = row_of(image_id, "processing", [], generation=2)
    refused = await call(workers[OTHER], "POST", path, 409)
    assert refused["errorCode"] == "RETRY_UNDER_WAY"
    assert "generation 2" in refused["message"]
    kept = (await call(workers[ONE], "GET", f"{LETTERS}/{letter_id}"))["deadLetter"]
    assert (kept["state"], kept["retriedAs"], kept["retryBegunAt"]) == ("retried", 2, None)


async def test_of_fifty_retries_of_a_letter_one_is_done(workers: list[Web]) -> None:
    _, letter_id = await fail(workers[ONE])
    answers = await ask(workers, f"{LETTERS}/{letter_id}/retry", 50)
    assert Counter(status for status, _ in answers) == {200: 1, 409: 49}
    codes = {said["errorCode"] for status, said in answers if status == 409}
    assert codes <= {"RETRY_UNDER_WAY", "ALREADY_RESOLVED"}
    assert runs(workers) == 1


async def test_of_many_retries_of_many_letters_each_is_done_once(workers: list[Web]) -> None:
    letters = [(await fail(workers[ONE]))[1] for _ in range(8)]
    answers = await ask(workers, f"{LETTERS}/retry", 10, {"tenantId": TENANT})
    assert {status for status, _ in answers} == {200}
    assert sorted(each for _, said in answers for each in said["done"]) == sorted(letters)
    codes = {each["errorCode"] for _, said in answers for each in said["skipped"]}
    assert codes <= {"RETRY_UNDER_WAY", "ALREADY_RESOLVED"}
    assert runs(workers) == len(letters)


async def begun(worker: Web) -> tuple[str, str, DeadLetter]:
    """Return an image and its letter, of which a worker that retries it has been killed."""
    image_id, letter_id = await fail(worker)
    letter = await worker.services.letters.find(letter_id)
    assert letter is not None
    assert await worker.services.letters.claim(letter, seconds=CLAIM_S)
    return image_id, letter_id, letter


async def test_a_retry_that_was_cut_off_is_waited_for_and_then_repeated(
    workers: list[Web],
) -> None:
    image_id, letter_id, letter = await begun(workers[ONE])
    for path in (f"/api/v1/images/{image_id}/retry", f"{LETTERS}/{letter_id}/retry"):
        assert (await call(workers[OTHER], "POST", path, 409))["errorCode"] == "RETRY_UNDER_WAY"
    discarded = await call(
        workers[OTHER], "POST", f"{LETTERS}/{letter_id}/discard", 409, {"reason": "no use"}
    )
    assert discarded["errorCode"] == "RETRY_UNDER_WAY"
    other = workers[OTHER]
    later = Replay(other.services, other.rows, other.publish, claim_s=0)
    assert await later.retry(letter) == 2
    assert runs(workers) == 1


async def test_a_retry_that_fails_locks_nothing(workers: list[Web]) -> None:
    _, letter_id = await fail(workers[ONE])
    workers[ONE].broker_fault = BrokerUnavailable()
    path = f"{LETTERS}/{letter_id}/retry"
    assert (await call(workers[ONE], "POST", path, 503))["errorCode"] == "BROKER_UNAVAILABLE"
    workers[ONE].broker_fault = None
    await call(workers[OTHER], "POST", path)


async def test_who_was_taken_for_dead_and_goes_on_changes_nothing(workers: list[Web]) -> None:
    _, letter_id = await fail(workers[ONE])
    store = workers[ONE].services.letters
    first, second = await store.find(letter_id), await store.find(letter_id)
    assert first is not None
    assert second is not None
    one, other = workers
    has_begun, goes_on = asyncio.Event(), asyncio.Event()

    async def stalled(*messages: Message) -> None:
        has_begun.set()
        await goes_on.wait()
        await one.publish(*messages)

    stalling = asyncio.create_task(Replay(one.services, one.rows, stalled).retry(first))
    await has_begun.wait()
    assert is_recent((await _kept(one, letter_id)).retryBegunAt, seconds=CLAIM_S)
    with pytest.raises(RetryUnderWay):
        await Replay(other.services, other.rows, other.publish).retry(second)
    assert await Replay(other.services, other.rows, other.publish, claim_s=0).retry(second) == 2
    goes_on.set()
    # It is the same event, and the same generation.
    assert await stalling == 2
    kept = await _kept(one, letter_id)
    assert (kept.state, kept.retriedAs) == ("retried", 2)


async def _kept(worker: Web, letter_id: str) -> DeadLetter:
    letter = await worker.services.letters.find(letter_id)
    assert letter is not None
    return letter


def test_a_claim_of_a_clock_that_is_wrong_binds_nobody() -> None:
    now = datetime.now(UTC)
    for minutes, recent in ((0, True), (-2, False), (2, False)):
        at = (now + timedelta(minutes=minutes)).isoformat()
        assert is_recent(at, seconds=30) is recent
    for unread in (None, "", "yesterday", "2026-01-01T00:00:00"):
        assert not is_recent(unread, seconds=30)


async def test_a_letter_that_is_written_again_after_a_kill_is_found(workers: list[Web]) -> None:
    """Its pointer was written with the time of the first, which nobody wrote."""
    _, letter_id = await fail(workers[ONE])
    store = workers[ONE].services.letters
    letter = await _kept(workers[ONE], letter_id)
    located = await store._locate(letter_id)
    assert located is not None
    await store._blobs.delete(located, action="be killed before it")
    letter.failedAt = "2026-01-31T12:00:00.000Z"
    await store.keep(letter)
    assert (await _kept(workers[OTHER], letter_id)).failedAt == letter.failedAt
    listed = await call(workers[ONE], "GET", f"{LETTERS}?tenantId={TENANT}")
    assert [each["letterId"] for each in listed["deadLetters"]] == [letter_id]
    await call(workers[OTHER], "POST", f"{LETTERS}/{letter_id}/retry")
