"""The web server listens where our settings say, and nowhere else."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from deeplens_streams.config import Settings, load_settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.host.ports import free_port
from deeplens_streams.runtime.apps import RoleApp, build_apps
from deeplens_streams.runtime.worker import DeepLensWorker


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        data_dir=tmp_path, storage_url="memory://", weights="untrained", web_port=free_port()
    )


async def addresses(app: RoleApp) -> list[tuple[str, int]]:
    """Start the app's web server; return where it listened."""
    server = cast(Any, app.web)
    await server.start_server()
    try:
        found: list[tuple[str, int]] = server._runner.addresses
        return found
    finally:
        await server.stop_server()


async def test_fausts_environment_changes_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "WEB_BIND": "0.0.0.0",
        "WEB_PORT": str(free_port()),
        "WEB_HOST": "example.org",
        "NODE_CANONICAL_URL": "http://example.org",
        "BROKER_URL": "kafka://example.org",
        "APP_DATADIR": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    app = build_apps(settings)
    assert await addresses(app) == [("127.0.0.1", settings.web_port)]
    assert (app.conf.web_bind, app.conf.web_port) == ("127.0.0.1", settings.web_port)
    assert str(app.conf.canonical_url) == settings.canonical_url
    assert str(app.conf.broker[0]) == settings.broker
    assert app.conf.datadir.is_relative_to(settings.state_path)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("web_bind", "0.0.0.0"),
        ("web_port", 8099),
        ("web_transport", "unix:///tmp/web"),
        ("canonical_url", "http://example.org:8099"),
    ],
)
async def test_fausts_options_are_refused_and_would_change_nothing(
    settings: Settings, option: str, value: object
) -> None:
    app = build_apps(settings)
    setattr(app.conf, option, value)  # as Faust's command does
    worker = DeepLensWorker(app, loop=asyncio.get_running_loop())
    with pytest.raises(ConfigurationError, match=r"DEEPLENS_WEB_HOST, DEEPLENS_WEB_PORT"):
        await worker._prepare(settings)
    assert await addresses(app) == [("127.0.0.1", settings.web_port)]
