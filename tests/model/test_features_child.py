"""The model's process: its end, its crashes, and what its parent never imports."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deeplens_streams.config import Settings
from deeplens_streams.errors import ExtractorUnavailable, UndecodableImage, WeightsUnavailable
from deeplens_streams.features import open_features
from deeplens_streams.features.child.client import ChildFeatures
from deeplens_streams.features.models import UNTRAINED
from tests.support.photographs import photograph
from tests.support.waiting import until


def child(**limits: Any) -> ChildFeatures:
    return ChildFeatures(Settings(weights="untrained", log_format="json"), UNTRAINED, **limits)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def in_hand(features: ChildFeatures, other_than: int | None = None, pictures: int = 1) -> int:
    """Wait until a process has been sent so many pictures, and return its ID."""
    await until(
        lambda: (
            features.process_id not in {None, other_than}
            and len(features._pending.in_hand()) >= pictures
        )
    )
    assert features.process_id is not None
    return features.process_id


async def test_a_picture_with_which_the_process_ends_twice_is_undecodable() -> None:
    features = child()
    task = asyncio.create_task(features.extract(photograph("coffee").data))
    first = await in_hand(features)
    os.kill(first, signal.SIGKILL)
    second = await in_hand(features, other_than=first)
    os.kill(second, signal.SIGKILL)
    with pytest.raises(UndecodableImage, match="crash"):
        await task
    await features.close()
    assert not alive(first)
    assert not alive(second)


async def test_after_a_crash_every_picture_is_tried_again() -> None:
    features = child()
    await features.ready()
    pid = features.process_id
    assert pid is not None
    names = ("coffee", "china", "rocket", "chelsea")
    tasks = [asyncio.create_task(features.extract(photograph(name).data)) for name in names]
    await in_hand(features)
    os.kill(pid, signal.SIGKILL)
    found = await asyncio.gather(*tasks)
    assert [each.vector.shape for each in found] == [(2048,)] * 4
    again = features.process_id
    await features.ping()
    await features.close()
    assert again is not None
    assert again != pid
    assert not alive(again)


async def test_a_picture_is_not_condemned_for_a_crash_with_others() -> None:
    features = child()
    await features.ready()
    picture = photograph("coffee").data
    tasks = [asyncio.create_task(features.extract(picture)) for _ in range(3)]
    first = await in_hand(features, pictures=3)
    os.kill(first, signal.SIGKILL)  # with several in hand
    second = await in_hand(features, other_than=first)
    os.kill(second, signal.SIGKILL)  # once alone: whose doing is not certain
    assert len(await asyncio.gather(*tasks)) == 3
    await features.close()


async def test_a_process_that_hangs_is_ended_and_its_work_done_again() -> None:
    features = child(silence_s=5.0, look_s=0.1)
    await features.ready()
    pid = features.process_id
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    task = asyncio.create_task(features.extract(photograph("coffee").data))
    await until(lambda: features.process_id not in {None, pid})
    assert (await task).vector.shape == (2048,)
    await features.close()


async def test_a_process_that_is_stopped_is_away_until_it_goes_on() -> None:
    """Also where it has nothing to do, and nobody misses an answer."""
    features = child(look_s=0.1, answer_s=2.0)
    await features.ready()
    pid = features.process_id
    assert pid is not None
    await features.ping()
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: features._heartbeat.silent_s > 2.0)
    with pytest.raises(ExtractorUnavailable, match="it is stopped or hangs"):
        await features.ping()
    os.kill(pid, signal.SIGCONT)
    await until(lambda: features._heartbeat.silent_s == 0)
    await features.ping()
    assert features.process_id == pid
    assert (await features.extract(photograph("coffee").data)).vector.shape == (2048,)
    await features.close()


async def test_a_process_that_answers_no_ping_for_ever_is_ended() -> None:
    features = child(look_s=0.1, answer_s=1.0, silence_s=5.0)
    await features.ready()
    pid = features.process_id
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: features.process_id not in {None, pid})
    assert (await features.extract(photograph("coffee").data)).vector.shape == (2048,)
    await features.ping()
    await features.close()


async def test_the_process_is_the_first_to_go_where_memory_runs_out() -> None:
    features = child()
    await features.ready()
    score = _oom_score(features.process_id)
    await features.close()
    assert score in {"1000", None}
    assert score or not sys.platform.startswith("linux")


async def test_closing_while_it_loads_leaves_nothing() -> None:
    features = child()
    task = asyncio.create_task(features.extract(photograph("coffee").data))
    await until(lambda: features.process_id is not None)
    pid = features.process_id
    assert pid is not None
    with pytest.raises(ExtractorUnavailable, match="loading"):
        await features.ping()
    await features.close()
    with pytest.raises(ExtractorUnavailable):
        await task
    with pytest.raises(ExtractorUnavailable):
        await features.ready()
    assert not alive(pid)


async def test_weights_that_cannot_be_loaded_are_told_and_not_tried_again(tmp_path: Path) -> None:
    damaged = tmp_path / "resnet50.pth"
    damaged.write_bytes(b"damaged")
    features = open_features(Settings(weights=str(damaged), log_format="json"))
    with pytest.raises(WeightsUnavailable, match="damaged"):
        await features.ready()
    with pytest.raises(ExtractorUnavailable, match="damaged"):
        await features.ping()
    with pytest.raises(ExtractorUnavailable, match="damaged"):
        await features.extract(photograph("coffee").data)
    await features.close()


ORPHANED = """
import asyncio, os, signal
from deeplens_streams.config import Settings
from deeplens_streams.features import open_features

async def main():
    features = open_features(Settings(weights="untrained"))
    await features.start()
    while features.process_id is None:
        await asyncio.sleep(0.01)
    print(features.process_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_the_process_ends_with_its_parent_however_that_ends() -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ORPHANED), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert await parent.wait() == -signal.SIGKILL
    await until(lambda: not _running(pid))


def _oom_score(pid: int | None) -> str | None:
    try:
        return Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
    except FileNotFoundError:
        return None


def _running(pid: int) -> bool:
    """Whether the process runs; one that nobody has waited for yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return Path("/proc/self").exists() is False and alive(pid)
    return state != "Z"


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:9"])
def test_torch_is_never_imported_here(url: str) -> None:
    script = (
        "import asyncio, sys\n"
        "from deeplens_streams.config import load_settings\n"
        "from deeplens_streams.features import open_features\n"
        "async def main():\n"
        "    features = open_features(load_settings())\n"
        "    await features.start()\n"
        "    await features.close()\n"
        "asyncio.run(main())\n"
        "assert not {'torch', 'torchvision'} & set(sys.modules), 'torch was imported'\n"
    )
    environment = os.environ | {"DEEPLENS_WEIGHTS": "untrained", "DEEPLENS_EXTRACTOR_URL": url}
    subprocess.run([sys.executable, "-c", script], env=environment, timeout=120, check=True)


def test_the_process_imports_nothing_of_kafka_or_http() -> None:
    """It has a worker's memory to share, and each restart waits for its imports."""
    script = (
        "import sys\n"
        "import deeplens_streams.features.child.main\n"
        "found = {'faust', 'aiohttp', 'aiokafka', 'torch'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", script], timeout=120, check=True)
