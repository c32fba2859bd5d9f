"""What ``deeplens doctor`` says of extraction services and weights, and which Kafka it asks."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientTimeout, web
from aiohttp.test_utils import TestServer

from deeplens_streams.cli import doctor_checks
from deeplens_streams.cli.broker import beside_up
from deeplens_streams.config import Settings
from deeplens_streams.features.kept_model import keep_model
from deeplens_streams.host.ports import free_port


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """Yield where one answers below ``/good``, is ill below ``/ill`` and hangs below ``/slow``."""

    async def well(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ill(_request: web.Request) -> web.Response:
        raise web.HTTPServiceUnavailable

    async def slow(_request: web.Request) -> web.Response:
        return await asyncio.get_running_loop().create_future()

    app = web.Application()
    for name, handler in (("good", well), ("ill", ill), ("slow", slow)):
        app.router.add_get(f"/{name}/health", handler)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def told(*urls: str) -> doctor_checks.Result:
    return await doctor_checks.extractor(Settings(extractor_url=urls))


async def test_services_that_answer(url: str) -> None:
    assert await told(f"{url}/good", f"{url}/good") == ("ok", "2 answer")


async def test_one_of_two_is_a_warning(url: str) -> None:
    state, detail = await told(f"{url}/good", f"{url}/ill")
    assert (state, detail) == ("warn", f"{url}/ill/health answers 503")


async def test_nobody_is_a_failure_that_names_the_setting(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_checks, "_PROBE_TIMEOUT", ClientTimeout(total=0.05))
    for bad in (f"http://127.0.0.1:{free_port()}", f"{url}/slow", "http://", "ftp://127.0.0.1"):
        state, detail = await told(bad)
        assert state == "fail"
        assert detail.startswith(f"{bad}/health does not answer (")
        assert detail.endswith("); start it, or correct DEEPLENS_EXTRACTOR_URL")
        assert "()" not in detail


def test_the_kafka_of_up_is_asked_where_it_runs_and_no_other_is_named(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    memory = tmp_path / "kafka" / "ports.json"
    assert beside_up(settings) is settings
    memory.parent.mkdir()
    for damaged in ("", "[]", '{"broker": 99999, "controller": 1}', '{"broker": "x"}'):
        memory.write_text(damaged)
        assert beside_up(settings) is settings
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        memory.write_text(json.dumps({"broker": port, "controller": 1}))
        assert beside_up(settings).broker == f"kafka://127.0.0.1:{port}"
        for named in ({"broker": "kafka://127.0.0.1:9092"}, {"kafka_tls": True}):
            other = Settings(data_dir=tmp_path, **named)
            assert beside_up(other) is other
    assert beside_up(settings) is settings


async def test_weights_are_those_of_the_folders_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    settings = Settings(data_dir=tmp_path)
    state, detail = await doctor_checks.weights(settings)
    assert (state, detail.partition(":")[0]) == ("warn", "resnet50")
    keep_model(tmp_path, "efficientnet-lite0")
    state, detail = await doctor_checks.weights(settings)
    assert state == "ok"
    assert detail.startswith("efficientnet-lite0, which the data folder has: /")
    keep_model(tmp_path, "gone")
    assert (await doctor_checks.weights(settings))[0] == "fail"
    untrained = settings.model_copy(update={"model": "resnet50-untrained"})
    assert (await doctor_checks.weights(untrained))[0] == "warn"
