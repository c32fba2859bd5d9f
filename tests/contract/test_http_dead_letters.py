"""Dead letters over HTTP: listed, inspected, retried at the step that failed, discarded."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents import dead_letters as keeper
from deeplens_streams.broker import codec
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import EXTRACTION, PROGRESS, TENANT_CHANGES
from deeplens_streams.client import models
from deeplens_streams.errors import (
    AlreadyResolved,
    BrokerUnavailable,
    DeepLensError,
    NewerVersion,
    NotRetryable,
    RetryUnderWay,
    UndecodableImage,
)
from deeplens_streams.pipeline import dead_letters as letters
from deeplens_streams.pipeline.dead_letters import kept_as, unreadable
from deeplens_streams.pipeline.retry import Replay
from deeplens_streams.services import Services
from deeplens_streams.storage import dead_letters as letter_store
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.store import Write
from models.events import (
    FeatureExtractionRequested,
    ProcessingFailed,
    derived_id,
)
from models.letters import DeadLetter
from models.status import Step, StepStatus
from tests.support.dead_letters import LETTERS, PICTURE, call, fail
from tests.support.stage_messages import incoming
from tests.support.web_server import TENANT, Web, report, row_of, running


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Web]:
    async with running(tmp_path) as found:
        yield found


async def test_a_letter_is_listed_and_inspected(served: Web) -> None:
    image_id, letter_id = await fail(served)
    answer = await call(served, "GET", f"{LETTERS}?tenantId={TENANT}")
    assert answer.keys() == models.LetterPage.blank().keys()
    (listed,) = answer["deadLetters"]
    assert listed["letterId"] == letter_id
    assert listed["imageId"] == image_id
    assert listed["failedStep"] == "feature_extraction"
    assert listed["errorCode"] == "INTERNAL"
    assert (listed["attempts"], listed["canRetry"], listed["state"]) == (3, True, "waiting")
    assert "stackTrace" not in listed
    whole = (await call(served, "GET", f"{LETTERS}/{letter_id}"))["deadLetter"]
    assert "what nobody foresaw" in whole["stackTrace"]
    assert whole["originalEvent"]["data"]["imageId"] == image_id


async def test_letters_are_filtered_and_paged(served: Web) -> None:
    others = [(await fail(served))[1] for _ in range(3)]
    bad = [(await fail(served, UndecodableImage()))[1] for _ in range(2)]
    strange = (await fail(served, tenant="another"))[1]

    async def listed(query: str) -> list[str]:
        found: list[str] = []
        cursor = ""
        while cursor is not None:
            answer = await call(served, "GET", f"{LETTERS}?limit=2&{query}&cursor={cursor}")
            assert len(answer["deadLetters"]) <= 2
            found += [each["letterId"] for each in answer["deadLetters"]]
            cursor = answer["nextCursor"]
        return found

    assert sorted(await listed(f"tenantId={TENANT}")) == sorted(others + bad)
    assert sorted(await listed("")) == sorted([*others, *bad, strange])
    assert await listed("tenantId=another") == [strange]
    assert sorted(await listed(f"tenantId={TENANT}&code=UNDECODABLE_IMAGE")) == sorted(bad)
    assert await listed(f"tenantId={TENANT}&step=vector_indexing") == []
    assert await listed(f"tenantId={TENANT}&until=2020-01-01T00:00:00Z") == []
    assert len(await listed(f"tenantId={TENANT}&since=2020-01-01T00:00:00Z")) == 5
    assert await listed(f"tenantId={TENANT}&state=discarded") == []
    assert len(await listed(f"tenantId={TENANT}&state=all")) == 5


async def test_a_retry_sends_the_event_as_the_next_generation(served: Web) -> None:
    image_id, letter_id = await fail(served)
    served.sent.clear()
    answer = await call(served, "POST", f"{LETTERS}/{letter_id}/retry")
    assert answer["deadLetter"]["state"] == "retried"
    assert answer["deadLetter"]["retriedAs"] == 2
    event, told = served.sent
    assert (event.topic, told.topic) == (EXTRACTION, PROGRESS)
    assert event.event.generation == told.event.generation == 2
    assert event.event.eventId == derived_id("extract", image_id, served.model.name, 2)
    codec.decode(FeatureExtractionRequested, codec.encode(event.event))
    again = await call(served, "POST", f"{LETTERS}/{letter_id}/retry", 409)
    assert again["errorCode"] == "ALREADY_RESOLVED"
    assert len(served.sent) == 2


async def test_a_retry_that_was_cut_off_can_be_repeated(served: Web) -> None:
    _, letter_id = await fail(served)
    served.broker_fault = BrokerUnavailable()
    await call(served, "POST", f"{LETTERS}/{letter_id}/retry", 503)
    served.broker_fault = None
    await call(served, "POST", f"{LETTERS}/{letter_id}/retry")


async def retried_in_vain(served: Web) -> tuple[str, DeadLetter]:
    """Retry a letter in a worker that dies before it writes that down; return image and letter."""
    image_id, letter_id = await fail(served)
    letter = await served.services.letters.find(letter_id)
    assert letter is not None
    await call(served, "POST", f"{LETTERS}/{letter_id}/retry")
    key = object_keys.letter_key(
        tenant=TENANT, letter_id=letter_id, ms=object_keys.epoch_ms(letter.failedAt)
    )
    await served.blobs.put(Write(key, orjson.dumps(letter.to_wire())), action="as it was")
    return image_id, letter


async def test_a_retry_that_failed_says_that_there_was_one(served: Web) -> None:
    image_id, letter = await retried_in_vain(served)
    await fail(served, again=image_id, generation=2)
    answer = await call(served, "GET", f"{LETTERS}/{letter.letterId}")
    assert answer["deadLetter"]["state"] == "retried"
    assert answer["deadLetter"]["retriedAs"] == 2
    (waiting,) = (await call(served, "GET", f"{LETTERS}?tenantId={TENANT}"))["deadLetters"]
    assert waiting["generation"] == 2


async def test_a_retry_that_nobody_wrote_down_is_not_repeated(served: Web) -> None:
    image_id, letter = await retried_in_vain(served)
    begun = report(
        Step.FEATURE_EXTRACTION, StepStatus.PENDING, modelName=served.model.name, generation=2
    )
    served.rows.held[image_id] = row_of(image_id, "processing", [begun], generation=2)
    served.sent.clear()
    answer = await call(served, "POST", f"{LETTERS}/{letter.letterId}/retry", 409)
    assert answer["errorCode"] == "ALREADY_RESOLVED"
    assert served.sent == []
    answer = await call(served, "GET", f"{LETTERS}/{letter.letterId}")
    assert answer["deadLetter"]["state"] == "retried"
    assert answer["deadLetter"]["retriedAs"] == 2


@pytest.mark.parametrize("said", [b"", b"{", b'{"tenantId": "demo"}'])
async def test_a_letter_is_kept_whose_pointer_cannot_be_read(served: Web, said: bytes) -> None:
    """A power cut left the pointer without its bytes, and the letter is written again."""
    _, letter_id = await fail(served)
    letters = served.services.letters
    letter = await letters.find(letter_id)
    assert letter is not None
    await letters.remove(letter_id)
    pointer = Write(object_keys.letter_pointer_key(letter_id), said)
    await served.blobs.put(pointer, action="cut the power")
    await letters.keep(letter)
    found = await letters.find(letter_id)
    assert found is not None
    assert found.to_wire() == letter.to_wire()


async def test_what_would_fail_again_is_retried_by_force_alone(served: Web) -> None:
    _, letter_id = await fail(served, UndecodableImage())
    answer = await call(served, "POST", f"{LETTERS}/{letter_id}/retry", 409)
    assert answer["errorCode"] == "NOT_RETRYABLE"
    await call(served, "POST", f"{LETTERS}/{letter_id}/retry", body={"force": True})


async def test_a_discarded_letter_says_why_and_stays_so(served: Web) -> None:
    _, letter_id = await fail(served)
    await call(served, "POST", f"{LETTERS}/{letter_id}/discard", 400, {})
    answer = await call(served, "POST", f"{LETTERS}/{letter_id}/discard", body={"reason": "a test"})
    assert answer["deadLetter"]["state"] == "discarded"
    assert answer["deadLetter"]["reason"] == "a test"
    await call(served, "POST", f"{LETTERS}/{letter_id}/retry", 409)
    answer = await call(served, "GET", f"{LETTERS}?tenantId={TENANT}")
    assert answer["deadLetters"] == []


async def test_all_that_a_filter_means_are_retried(served: Web) -> None:
    others = [(await fail(served))[1] for _ in range(3)]
    bad = (await fail(served, UndecodableImage()))[1]
    answer = await call(served, "POST", f"{LETTERS}/retry", body={"tenantId": TENANT})
    assert sorted(answer["done"]) == sorted(others)
    assert [each["letterId"] for each in answer["skipped"]] == [bad]
    assert answer["nextCursor"] is None
    answer = await call(
        served, "POST", f"{LETTERS}/discard", body={"ids": [bad], "reason": "not a picture"}
    )
    assert answer["done"] == [bad]
    unknown = str(uuid.uuid4())
    answer = await call(served, "POST", f"{LETTERS}/retry", 404, {"ids": [unknown]})
    assert answer["errorCode"] == "LETTER_NOT_FOUND"


async def test_a_letter_whose_image_moved_on_is_superseded(served: Web) -> None:
    image_id, letter_id = await fail(served)
    await served.index(image_id)
    served.sent.clear()
    await call(served, "POST", f"{LETTERS}/{letter_id}/retry", 409)
    assert served.sent == []
    answer = await call(served, "GET", f"{LETTERS}/{letter_id}")
    assert answer["deadLetter"]["state"] == "superseded"


async def test_a_letter_of_a_deleted_image_is_superseded(served: Web) -> None:
    image_id, letter_id = await fail(served)
    await served.storage.delete_metadata(tenant=TENANT, image_id=image_id)
    await call(served, "POST", f"{LETTERS}/{letter_id}/retry", 404)
    answer = await call(served, "GET", f"{LETTERS}/{letter_id}")
    assert answer["deadLetter"]["state"] == "superseded"


async def test_an_image_is_retried_by_its_id(served: Web) -> None:
    image_id, letter_id = await fail(served)
    answer = await call(served, "POST", f"/api/v1/images/{image_id}/retry", 202)
    assert answer["retried"] == [letter_id]
    assert answer["generation"] == 2
    await call(served, "POST", f"/api/v1/images/{image_id}/retry", 409)
    await call(served, "POST", f"/api/v1/images/{uuid.uuid4()}/retry", 404)
    fresh = (await served.upload(PICTURE))["imageId"]
    answer = await call(served, "POST", f"/api/v1/images/{fresh}/retry", 409)
    assert answer["errorCode"] == "NOTHING_TO_RETRY"


async def test_the_letter_of_an_unreadable_message_is_nobodys(served: Web) -> None:
    message = unreadable("image_processing", incoming(b"garbage"), DeepLensError("no JSON"))
    for _ in range(2):  # as after a crash
        await keeper.process(message.event, served.context.services)
    answer = await call(served, "GET", f"{LETTERS}?tenantId=-")
    (listed,) = answer["deadLetters"]
    assert listed["tenantId"] == ""
    for body in ({}, {"force": True}):
        await call(served, "POST", f"{LETTERS}/{listed['letterId']}/retry", 409, body)


async def test_a_strangers_letter_is_kept_too(served: Web) -> None:
    _, letter_id = await fail(served)
    message = unreadable("s", incoming(b"x"), DeepLensError("no JSON"))
    message.event.eventId, message.event.timestamp = "../../x", "yesterday"
    await keeper.process(message.event, served.context.services)
    answer = await call(served, "GET", LETTERS)
    assert len(answer["deadLetters"]) == 2
    assert letter_id in {each["letterId"] for each in answer["deadLetters"]}


@pytest.mark.parametrize("when", ["first", "last"])
async def test_a_letter_that_names_another_tenant_takes_nobodys_place(
    served: Web, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever knows an image's ID can work out the IDs of its events, and so of its failures."""
    true: list[ProcessingFailed] = []
    forged: list[ProcessingFailed] = []
    keep = keeper.process

    async def with_a_forged_one(event: ProcessingFailed, services: Services) -> list[Message]:
        copy = codec.decode(ProcessingFailed, codec.encode(event))
        copy.tenantId, copy.data.errorMessage, copy.data.originalEvent = "another", "forged", None
        true.append(event)
        forged.append(copy)
        for each in (copy, event) if when == "first" else (event, copy):
            await keep(each, services)
        return []

    monkeypatch.setattr(keeper, "process", with_a_forged_one)
    image_id, letter_id = await fail(served)
    assert [each.eventId for each in true] == [each.eventId for each in forged]
    letter = (await call(served, "GET", f"{LETTERS}/{letter_id}"))["deadLetter"]
    assert (letter["tenantId"], letter["errorCode"]) == (TENANT, "INTERNAL")
    assert letter["errorMessage"] != "forged"
    theirs = (await call(served, "GET", f"{LETTERS}?tenantId=another"))["deadLetters"]
    assert [each["errorMessage"] for each in theirs] == ["forged"]
    answer = await call(served, "POST", f"{LETTERS}/{theirs[0]['letterId']}/retry", 409)
    assert answer["errorCode"] == "NOT_RETRYABLE"
    answer = await call(served, "POST", f"/api/v1/images/{image_id}/retry", 202)
    assert answer["retried"] == [letter_id]


@pytest.mark.parametrize(
    "query",
    [
        "tenantId=A",
        "state=x",
        "state=",
        "since=x",
        "since=",
        "until=",
        "limit=0",
        "cursor=x&tenantId=demo",
    ],
)
async def test_bad_filters(served: Web, query: str) -> None:
    await call(served, "GET", f"{LETTERS}?{query}", 400)


@pytest.mark.parametrize("body", [[], {"ids": "x"}, {"ids": ["x"]}, {"force": 1}, {"step": 1}])
async def test_bad_bodies(served: Web, body: Any) -> None:
    await call(served, "POST", f"{LETTERS}/retry", 400, body)


async def test_unknown_letters(served: Web) -> None:
    await call(served, "GET", f"{LETTERS}/{uuid.uuid4()}", 404)
    await call(served, "GET", f"{LETTERS}/x", 400)
    _, letter_id = await fail(served)
    await call(served, "GET", f"{LETTERS}/{letter_id}?tenantId=another", 404)


async def test_ids_with_a_tenant_are_that_tenants_alone(served: Web) -> None:
    _, theirs = await fail(served, tenant="another")
    for verb, more in (("retry", {"force": True}), ("discard", {"reason": "not mine"})):
        body = {"ids": [theirs], "tenantId": TENANT, **more}
        answer = await call(served, "POST", f"{LETTERS}/{verb}", 404, body)
        assert answer["errorCode"] == "LETTER_NOT_FOUND"
    bad = {"ids": [], "tenantId": "A", "reason": "x"}
    await call(served, "POST", f"{LETTERS}/discard", 400, bad)
    letter = (await call(served, "GET", f"{LETTERS}/{theirs}"))["deadLetter"]
    assert letter["state"] == "waiting"
    body = {"ids": [theirs], "tenantId": "another"}
    assert (await call(served, "POST", f"{LETTERS}/retry", 200, body))["done"] == [theirs]


@pytest.mark.parametrize("ends", [False, True])
async def test_letters_of_a_tenant_that_is_not_served_without_keys(
    served: Web, *, ends: bool
) -> None:
    await call(served, "POST", "/api/v1/admin/tenants", 201, {"tenantId": TENANT})
    _, letter_id = await fail(served)
    _, other_id = await fail(served, tenant="another")
    message = unreadable("image_processing", incoming(b"garbage"), DeepLensError("no JSON"))
    await keeper.process(message.event, served.context.services)
    path = f"/api/v1/admin/tenants/{TENANT}"
    if ends:
        await call(served, "DELETE", f"{path}?confirm={TENANT}", 202)
    else:
        await call(served, "POST", f"{path}/suspend")
    code = "TENANT_DELETING" if ends else "TENANT_SUSPENDED"
    why, served.sent[:] = {"reason": "a test"}, []
    for method, rest, body in (
        ("GET", f"?tenantId={TENANT}", None),
        ("GET", f"/{letter_id}", None),
        ("GET", f"/{letter_id}?tenantId={TENANT}", None),
        ("POST", f"/{letter_id}/retry", None),
        ("POST", f"/{letter_id}/discard", why),
        ("POST", "/retry", {"tenantId": TENANT}),
        ("POST", "/discard", {"tenantId": TENANT, **why}),
        ("POST", "/retry", {"ids": [other_id, letter_id]}),
        ("POST", "/discard", {"ids": [other_id, letter_id], **why}),
    ):
        answer = await call(served, method, f"{LETTERS}{rest}", 403, body)
        assert answer["errorCode"] == code
    await call(served, "GET", f"{LETTERS}/{letter_id}?tenantId=another", 404)
    # Everybody's are those of nobody and of who is served.
    found = (await call(served, "GET", LETTERS))["deadLetters"]
    assert [each["tenantId"] for each in found] == ["", "another"]
    answer = await call(served, "POST", f"{LETTERS}/retry", body={"code": "INTERNAL"})
    assert answer["done"] == [other_id]
    if not ends:
        await call(served, "POST", f"{path}/resume")
        answer = await call(served, "GET", f"{LETTERS}/{letter_id}")
        assert answer["deadLetter"]["state"] == "waiting"
        assert len((await call(served, "GET", LETTERS))["deadLetters"]) == 2


async def test_another_tenants_fresh_image_is_unknown_to_a_retry(served: Web) -> None:
    image_id = (await served.upload(PICTURE))["imageId"]
    path = f"/api/v1/images/{image_id}/retry"
    answer = await call(served, "POST", f"{path}?tenantId=another", 404)
    assert answer["errorCode"] == "IMAGE_NOT_FOUND"
    await call(served, "POST", f"{path}?tenantId=A", 400)
    assert (await call(served, "POST", path, 409))["errorCode"] == "NOTHING_TO_RETRY"


async def test_a_retry_of_which_kafka_takes_a_part_can_be_repeated(served: Web) -> None:
    _, letter_id = await fail(served)
    taken: list[Message] = []

    async def half(*messages: Message) -> None:
        taken.extend(each for each in messages if each.topic is not EXTRACTION)
        if len(messages) > sum(each.topic is not EXTRACTION for each in messages):
            raise BrokerUnavailable  # that topic's partition has no leader

    letter = await served.services.letters.find(letter_id)
    assert letter is not None
    with pytest.raises(BrokerUnavailable):
        await Replay(served.services, served.rows, half).retry(letter)
    # The row still says that it failed, by which the next try goes.
    assert taken == []
    await call(served, "POST", f"{LETTERS}/{letter_id}/retry")


async def test_of_a_retry_and_a_discard_at_once_one_is_written_down(served: Web) -> None:
    """Both have read the letter before either has decided."""
    _, letter_id = await fail(served)
    read = [await served.services.letters.find(letter_id) for _ in range(4)]
    letter, last, *others = (each for each in read if each is not None)

    async def meanwhile(*messages: Message) -> None:
        await served.publish(*messages)
        path = f"{LETTERS}/{letter_id}/discard"
        answer = await call(served, "POST", path, 409, body={"reason": "no use"})
        assert answer["errorCode"] == "RETRY_UNDER_WAY"
        with pytest.raises(RetryUnderWay):
            await replay_of(served).discard(others.pop(), "another reason")

    await Replay(served.services, served.rows, meanwhile).retry(letter)
    with pytest.raises(AlreadyResolved, match="was retried at"):
        await replay_of(served).discard(last, "another reason")
    kept = await served.services.letters.find(letter_id)
    assert kept is not None
    assert (kept.state, kept.reason, kept.retriedAs) == ("retried", None, 2)


async def test_a_letter_that_was_discarded_is_not_retried_by_who_read_it_before(
    served: Web,
) -> None:
    _, letter_id = await fail(served)
    letter = await served.services.letters.find(letter_id)
    assert letter is not None
    await call(served, "POST", f"{LETTERS}/{letter_id}/discard", body={"reason": "no use"})
    before = len(served.sent)
    with pytest.raises(AlreadyResolved, match="was discarded at"):
        await replay_of(served).retry(letter)
    assert len(served.sent) == before


async def test_a_retry_that_fails_again_before_it_is_noted_was_one(served: Web) -> None:
    """The keeper of its letter notes it first; it is the same."""
    image_id, letter_id = await fail(served)
    letter = await served.services.letters.find(letter_id)
    assert letter is not None

    async def fails_at_once(*messages: Message) -> None:
        await served.publish(*messages)
        await fail(served, again=image_id, generation=2)

    assert await Replay(served.services, served.rows, fails_at_once).retry(letter) == 2
    kept = await served.services.letters.find(letter_id)
    assert kept is not None
    assert (kept.state, kept.retriedAs) == ("retried", 2)


async def test_of_many_who_resolve_a_letter_one_succeeds(served: Web) -> None:
    _, letter_id = await fail(served)
    store = served.services.letters
    found = [await store.find(letter_id) for _ in range(10)]

    async def resolve(number: int, letter: DeadLetter) -> bool:
        letter.state, letter.reason = "discarded", str(number)
        return await store.resolve(letter)

    work = [resolve(number, each) for number, each in enumerate(found) if each is not None]
    done = await asyncio.gather(*work)
    assert sum(done) == 1
    kept = await store.find(letter_id)
    assert kept is not None
    assert kept.reason == str(done.index(True))


def replay_of(served: Web) -> Replay:
    return Replay(served.services, served.rows, served.publish)


async def pages_of_all(served: Web, query: str = "") -> list[list[str]]:
    """Return the letters of everybody, page by page."""
    pages: list[list[str]] = []
    cursor = ""
    while cursor is not None:
        answer = await call(served, "GET", f"{LETTERS}?cursor={cursor}&{query}")
        pages.append([each["letterId"] for each in answer["deadLetters"]])
        cursor = answer["nextCursor"]
    return pages


async def test_a_page_of_everybodys_letters_is_no_longer_than_its_limit(served: Web) -> None:
    first = [(await fail(served, tenant="one"))[1] for _ in range(2)]
    second = (await fail(served, tenant="two"))[1]
    pages = await pages_of_all(served, "limit=2")
    assert [sorted(each) for each in pages] == [sorted(first), [second]]


async def test_a_page_looks_at_so_many_letters_of_all_tenants_together(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letter_store, "MAX_WALK", 3)
    wanted = [(await fail(served, tenant="c"))[1]]
    for tenant in ("a", "b"):
        for _ in range(2):
            await fail(served, UndecodableImage(), tenant=tenant)
    read: list[str] = []
    parsed = letter_store._parsed

    def counted(key: str, raw: bytes | None) -> DeadLetter | None:
        read.append(key)
        return parsed(key, raw)

    monkeypatch.setattr(letter_store, "_parsed", counted)
    answer = await call(served, "GET", f"{LETTERS}?code=INTERNAL")
    assert answer["deadLetters"] == []
    assert answer["nextCursor"].startswith("b.")
    assert len(read) <= 4  # one more tells that there is more
    pages = await pages_of_all(served, "code=INTERNAL")
    assert pages == [[], wanted]


async def test_a_page_looks_into_so_many_tenants(
    served: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        await served.upload(PICTURE, tenantId=f"t{number}", skipDuplicateCheck="true")
    letter_id = (await fail(served, tenant="t8"))[1]
    monkeypatch.setattr(letter_store, "MAX_TENANTS", 4)
    listed: list[str] = []
    children = type(served.blobs).children

    async def counted(self: Any, path: str, *, action: str) -> Any:
        listed.append(path)
        return await children(self, path, action=action)

    monkeypatch.setattr(type(served.blobs), "children", counted)
    answer = await call(served, "GET", LETTERS)
    # Those of nobody and of "failed" and "index", where pointers are, and one more.
    assert (answer["deadLetters"], answer["nextCursor"]) == ([], "t1.")
    assert len(listed) <= 1 + 3 + 9  # the names, and one for each
    pages = await pages_of_all(served)
    assert [page for page in pages if page] == [[letter_id]]


async def test_an_error_that_is_known_has_its_trace_and_causes(served: Web) -> None:
    def decode() -> None:
        try:
            raise OSError("the decoder's own words")
        except OSError as error:
            raise UndecodableImage from error

    with pytest.raises(UndecodableImage) as caught:
        decode()
    _, letter_id = await fail(served, caught.value)
    letter = (await call(served, "GET", f"{LETTERS}/{letter_id}"))["deadLetter"]
    assert letter["canRetry"] is False
    for said in ("the decoder's own words", "in decode", "UndecodableImage"):
        assert said in letter["stackTrace"]


async def test_a_trace_is_bounded_and_keeps_both_ends(served: Web) -> None:
    error: Exception = ValueError("the first cause")
    for _ in range(50):
        follow = RuntimeError("x" * 1000)
        follow.__cause__, error = error, follow
    last = UndecodableImage()
    last.__cause__ = error
    _, letter_id = await fail(served, last)
    letter = await served.services.letters.find(letter_id)
    assert letter is not None
    trace = letter.stackTrace or ""
    assert len(trace) <= letters.TRACE_CHARS + 10
    assert "the first cause" in trace
    assert "UndecodableImage" in trace.splitlines()[-1]


async def of_a_newer_version(served: Web, step: str, event: dict[str, Any]) -> DeadLetter:
    """Keep the letter of an event whose version nobody could read."""
    message = incoming(orjson.dumps(event | {"tenantId": TENANT}))
    letter = unreadable(step, message, NewerVersion())
    await keeper.process(letter.event, served.context.services)  # a letter
    kept = await served.services.letters.find(kept_as(TENANT, letter.event.eventId))
    assert kept is not None
    return kept


async def test_what_was_of_a_newer_version_is_sent_as_it_was_after_the_upgrade(served: Web) -> None:
    image_id = f"img_{uuid.uuid4()}"
    reports = [{"step": "face_detection", "status": "completed", "score": 0.5}]
    event = {
        "eventType": "image.progress",
        "eventVersion": "2.0",
        "correlationId": "c",
        "generation": 3,
        "data": {"imageId": image_id, "reports": reports},
    }
    letter = await of_a_newer_version(served, "status_tracking", event)
    assert (letter.errorCode, letter.canRetry) == ("NEWER_VERSION", True)
    answer = await call(served, "POST", f"{LETTERS}/{letter.letterId}/retry", 409)
    assert "reads 1.x" in answer["message"]
    assert letter.originalEvent is not None
    letter.originalEvent["eventVersion"] = "1.9"  # as who has the newer version sees it
    served.sent.clear()
    replay = Replay(served.services, served.context.rows, served.context.publish)
    assert await replay.retry(letter) == 3
    (sent,) = served.sent
    assert sent.topic is PROGRESS
    assert orjson.loads(codec.encode(sent.event))["data"]["reports"][0]["score"] == 0.5
    after = await call(served, "GET", f"{LETTERS}/{letter.letterId}")
    assert (after["deadLetter"]["state"], after["deadLetter"]["retriedAs"]) == ("retried", 3)


async def test_a_change_of_a_tenant_that_was_not_known_is_applied_later(served: Web) -> None:
    event = {"eventType": "tenant.change", "correlationId": "c", "eventId": "first"}
    letter = await of_a_newer_version(served, "tenants", event | {"data": {"kind": "merge"}})
    sent: list[Message] = []

    async def publish(*messages: Message) -> None:
        sent.extend(messages)

    replay = Replay(served.services, served.context.rows, publish)
    with pytest.raises(NotRetryable, match="upgrade first"):
        await replay.retry(letter)
    letter.originalEvent = event | {"tenantId": TENANT, "data": {"kind": "limit", "tier": "gold"}}
    await replay.retry(letter)
    (message,) = sent
    assert message.topic is TENANT_CHANGES
    assert message.event.to_wire()["data"]["tier"] == "gold"
    # Where a worker that is older still gets it, it becomes another letter.
    assert message.event.eventId == derived_id("again", letter.letterId)
    with pytest.raises(NotRetryable, match="no such stage"):
        await replay.retry(await of_a_newer_version(served, "face_detection", event))
