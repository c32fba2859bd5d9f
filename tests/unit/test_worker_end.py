"""What a worker begins with, and that what ended it is what it says last."""

import asyncio
import gc
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from aiokafka.errors import KafkaConnectionError

from deeplens_streams.config import load_settings
from deeplens_streams.errors import ExtractorUnavailable
from deeplens_streams.runtime.apps import build_apps
from deeplens_streams.runtime.worker import DeepLensWorker, Foundation, cause_of_end
from tables.damage import TableFolderUnusable


@pytest.fixture
def worker(tmp_path: Path) -> DeepLensWorker:
    settings = load_settings(data_dir=tmp_path, storage_url="memory://", weights="untrained")
    return DeepLensWorker(build_apps(settings), loop=asyncio.new_event_loop())


def test_what_stays_is_not_collected_again(
    worker: DeepLensWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def prepared(*_: object) -> None:
        pass

    def runs() -> NoReturn:
        raise SystemExit(gc.get_freeze_count())

    monkeypatch.setattr("logging.config.dictConfig", lambda _: None)
    monkeypatch.setattr(worker, "_prepare", prepared)
    monkeypatch.setattr(worker, "_run", runs)
    before = gc.get_freeze_count()
    with pytest.raises(SystemExit) as ended:
        worker.execute_from_commandline()
    gc.unfreeze()
    worker.loop.close()
    assert isinstance(ended.value.code, int)
    assert ended.value.code > before + len(sys.modules)


def test_what_fails_behind_the_first_cause_is_no_cause(
    worker: DeepLensWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(_self: object) -> None:
        worker._crash(TableFolderUnusable("The folder x is a file."))
        worker._crash(ExtractorUnavailable("The model is shutting down."))
        raise SystemExit(1)

    monkeypatch.setattr("faust.Worker.execute_from_commandline", ends)
    with pytest.raises(SystemExit) as ended:
        worker._run()
    assert ended.value.code == "deeplens: The folder x is a file."
    worker.loop.close()


async def test_a_model_that_ends_with_its_worker_is_no_reason(
    worker: DeepLensWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = worker.collaborators.features
    assert features is not None

    async def ready() -> None:
        raise ExtractorUnavailable("The model is shutting down.")

    refused: list[str] = []
    monkeypatch.setattr(features, "ready", ready)
    monkeypatch.setattr(worker, "refuse", refused.append)
    foundation = Foundation(worker)
    await foundation._watch_model.fun(foundation)
    assert refused == ["The model is shutting down."]
    foundation._stopped.set()
    await foundation._watch_model.fun(foundation)
    assert len(refused) == 1
    worker.loop.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KafkaConnectionError("gone"), "Kafka refused"),
        (PermissionError(13, "Permission denied", "/x"), "The system refused"),
        (ValueError("what\nelse"), "that nobody foresaw (ValueError: what)"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_every_cause_is_one_sentence(error: Exception, said: str) -> None:
    sentence = cause_of_end(error)
    assert said in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
