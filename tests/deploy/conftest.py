"""Deployment files as the programs see them that read them for real."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml

from deeplens_streams.broker_security import broker_security
from deeplens_streams.config import Settings, load_settings
from tests.deploy.tools import CHART, DOCKER, SECRETS, run
from tests.support.programs import program

Compose = dict[str, Any]
Manifests = list[dict[str, Any]]

#: The Kubernetes that Helm is told of where none is there to be asked.
KUBERNETES = "1.33"

#: What a release needs at the least.
NEEDED = {
    "DEEPLENS_BROKER": "kafka://kafka-0.kafka:9092;kafka://kafka-1.kafka:9092",
    "DEEPLENS_STORAGE_URL": "s3://pictures/deeplens",
    "DEEPLENS_QDRANT_URL": "http://qdrant:6333",
}


def compose_config(*options: str, files: tuple[str, ...] = ("compose.yaml",)) -> Compose:
    """Return what Docker Compose makes of the files."""
    named = [part for file in files for part in ("--file", file)]
    # Without the .env that someone may have there.
    asked = (program("docker-compose"), "--env-file", os.devnull, *named, "config", *options)
    config: Compose = json.loads(run(*asked, "--format", "json", cwd=DOCKER, env=SECRETS))
    return config


@pytest.fixture(scope="session")
def compose() -> Compose:
    return compose_config()


@pytest.fixture(scope="session")
def services(compose: Compose) -> dict[str, Compose]:
    found: dict[str, Compose] = compose["services"]
    return found


@pytest.fixture(scope="session")
def render() -> Callable[..., Manifests]:
    """Return a function from the chart's values to the objects that Helm would create."""
    helm, known = program("helm"), dict[str, str]()

    def rendered(values: Mapping[str, Any] | None = None) -> Manifests:
        given = dict(values or {})
        given["settings"] = NEEDED | given.get("settings", {})
        asked = ",".join(f"{key}={json.dumps(value)}" for key, value in given.items())
        if asked not in known:
            command = (helm, "template", "pics", str(CHART), "--kube-version", f"{KUBERNETES}.0")
            known[asked] = run(*command, "--set-json", asked)
        return [each for each in yaml.safe_load_all(known[asked]) if each]

    return rendered


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], Settings]:
    """Return a function that reads settings as a container with that environment would."""

    def read(environment: Mapping[str, str]) -> Settings:
        for name in [name for name in os.environ if name.startswith("DEEPLENS_")]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = load_settings()
        broker_security(settings)
        return settings

    return read
