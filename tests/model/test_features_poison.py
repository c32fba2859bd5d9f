"""Pictures whose decoder crashes, hangs or fails: who is blamed, who knows, and who goes on."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from deeplens_streams.errors import UndecodableImage
from deeplens_streams.features.child import client as child_module
from deeplens_streams.features.child.client import DECODE_S, ChildFeatures
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.features.remote.client import TIMEOUT_S
from deeplens_streams.features.remote.errors import ExtractionFailed
from tests.model.hostile_features import SETTINGS, a_vector, letter_of, over_http
from tests.model.hostile_process import CHATTY, CRASH, FAIL, FAIL_ONCE, HOG, LOOP, picture


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_RESTART_WAIT_S", 0.01)


@asynccontextmanager
async def hostile() -> AsyncIterator[ChildFeatures]:
    features = ChildFeatures(
        SETTINGS,
        UNTRAINED,
        decode_s=0.3,
        silence_s=30.0,
        look_s=0.05,
        program="tests.model.hostile_process",
    )
    try:
        yield features
    finally:
        await features.close()


@pytest.mark.parametrize("kind", [LOOP, HOG])
async def test_a_decoder_that_hangs_is_ended_while_others_are_answered(kind: bytes) -> None:
    """Were any answer a sign of life, it would hang for as long as there is traffic."""
    async with hostile() as features:
        await features.ready()
        poison = asyncio.create_task(features.extract(picture(kind)))
        numbers, answered = iter(range(10_000)), 0
        async with asyncio.timeout(30):
            while not poison.done():
                await a_vector(features, next(numbers))
                answered += 1
        with pytest.raises(UndecodableImage, match="busy"):
            await poison
        assert answered


async def test_what_a_library_prints_is_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO", "native")
    async with hostile() as features:
        await features.extract(picture(CHATTY))
        await a_vector(features, 1)
    told = [each.getMessage() for each in caplog.records if each.name == "native"]
    assert told == ["a native library printed: odd.tif: \x1b[2Jan odd tag"]
    # The process itself writes what the worker writes.
    lines = [json.loads(each) for each in capfd.readouterr().err.splitlines()]
    assert "the model is loaded" in [each["event"] for each in lines]


async def test_a_verdict_is_remembered_and_costs_no_process_again() -> None:
    async with hostile() as features:
        for kind, told in ((LOOP, "busy"), (CRASH, "crash")):
            with pytest.raises(UndecodableImage, match=told):
                await features.extract(picture(kind))
        await a_vector(features, 0)
        pid = features.process_id
        for kind, told in ((LOOP, "busy"), (CRASH, "crash")):
            with pytest.raises(UndecodableImage, match=told):
                await features.extract(picture(kind), urgent=True)
        await a_vector(features, 1)
        assert features.process_id == pid


@pytest.mark.parametrize("kind", [LOOP, CRASH])
async def test_a_caller_that_never_waits_long_enough_gets_a_verdict(kind: bytes) -> None:
    async with hostile() as features:
        await features.ready()
        async with asyncio.timeout(60):
            verdict = False
            while not verdict:  # else every resend began anew
                try:
                    async with asyncio.timeout(0.25):
                        await features.extract(picture(kind))
                except TimeoutError:
                    continue
                except UndecodableImage:
                    verdict = True


async def test_who_waits_behind_hanging_decoders_is_not_blamed() -> None:
    async with hostile() as features:
        await features.ready()
        poison = [asyncio.create_task(features.extract(picture(LOOP, each))) for each in range(2)]
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await asyncio.gather(*(a_vector(features, each) for each in range(6)))
            for each in poison:
                with pytest.raises(UndecodableImage):
                    await each


async def test_a_hanging_decoder_whose_caller_left_is_ended_too() -> None:
    async with hostile() as features:
        await features.ready()
        pid = features.process_id
        poison = [asyncio.create_task(features.extract(picture(LOOP, each))) for each in range(2)]
        await asyncio.sleep(0.05)
        for each in poison:
            each.cancel()
        async with asyncio.timeout(30):
            await a_vector(features, 0)
        assert features.process_id != pid


async def test_poison_that_is_there_first_does_not_look_like_a_model_that_cannot_load() -> None:
    async with hostile() as features:
        others = [asyncio.create_task(a_vector(features, each)) for each in range(4)]
        with pytest.raises(UndecodableImage, match="crash"):
            await features.extract(picture(CRASH))
        await asyncio.gather(*others)


# Unexpected errors ---------------------------------------------------------------------------


async def test_an_unexpected_error_says_what_it_was_with_the_trace() -> None:
    async with hostile() as features:
        with pytest.raises(ExtractionFailed, match="RuntimeError: CUDA error") as told:
            await features.extract(picture(FAIL))
        assert "in _decode" in told.value.__notes__[0]


async def test_an_unexpected_error_has_the_attempts_of_its_policy() -> None:
    async with hostile() as features:
        (letter,), _ = await letter_of(features, picture(FAIL))
        assert letter.data.retryAttempt == 3
        assert letter.data.canRetry
        assert "CUDA error: out of luck" in (letter.data.stackTrace or "")
        assert "in _decode" in (letter.data.stackTrace or "")
        assert await letter_of(features, picture(FAIL_ONCE)) == ([], 1)


async def test_an_unexpected_error_of_a_service_has_them_too() -> None:
    async with hostile() as behind, over_http(behind) as (remote, statuses):
        (letter,), _ = await letter_of(remote, picture(FAIL))
        assert letter.data.retryAttempt == 3
        assert letter.data.canRetry
        assert "RuntimeError: CUDA error: out of luck" in (letter.data.stackTrace or "")
        assert statuses.count(500) == 3


# From a service ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LOOP, CRASH])
async def test_the_verdict_of_a_service_reaches_the_worker_that_asked(kind: bytes) -> None:
    """And no second service has to find it out."""
    async with hostile() as behind, over_http(behind) as (remote, _):
        with pytest.raises(UndecodableImage, match="The picture"):
            await remote.extract(picture(kind))


def test_a_client_waits_for_longer_than_a_verdict_takes() -> None:
    two_restarts = 2 * 90
    # Once beside others that it keeps from their work, and twice alone.
    assert 3 * DECODE_S + two_restarts < TIMEOUT_S
